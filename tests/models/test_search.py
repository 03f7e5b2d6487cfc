"""Beam search against every sentence there is."""

from itertools import pairwise, product

import pytest
import torch

from skipmodal.models.search import LENGTH_POWER, beam_search, sample
from skipmodal.text import BOS, EOS, PAD

LETTERS = (3, 4, 5)  # the only characters of these languages
ONES = (torch.arange(66) != PAD).long()


def language(seed: int, rows: int):
    """A random language: scores of the next character given the last one and the item."""
    table = torch.zeros(rows, 66, 66)
    generator = torch.Generator().manual_seed(seed)
    for before in (BOS, *LETTERS):
        table[:, before] = -torch.inf
        table[:, before, [EOS, *LETTERS]] = 2 * torch.randn(rows, 4, generator=generator)
    table = table.log_softmax(-1)

    def step(ids, state):
        (item,) = state
        return table[item[0, :, 0].long(), ids[:, 0]], state

    return table, step, (torch.arange(rows, dtype=torch.float)[None, :, None],)


def sentences(found):
    """Those that have ended, as lists of characters, in order."""
    return sorted([i for i in row if i != PAD] for row in found.ids[~found.capped].tolist())


def score(table, path):
    return sum(table[x, y].item() for x, y in pairwise((BOS, *path)))


def best_by_hand(table, longest: int):
    """The first sentence that ends while it is the best of all sentences and beginnings of its length; its score, and
    that length."""

    def a_character(path):
        return score(table, path) / len(path) ** LENGTH_POWER

    ended = []
    for n in range(1, longest + 1):
        ended += [(*letters, EOS) for letters in product(LETTERS, repeat=n - 1)]
        every = ended + list(product(LETTERS, repeat=n))
        if max(every, key=a_character)[-1] == EOS:
            break
    best = max(ended, key=a_character)
    return list(best), score(table, best), n


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_beam_finds_the_best_sentence(seed):
    table, step, state = language(seed, 3)
    found = beam_search(step, state, 4, 60, ONES)
    for row in range(3):
        ids, expected, _ = best_by_hand(table[row], 4)
        assert [i for i in found.ids[row].tolist() if i != PAD] == ids
        assert found.log_probability[row].item() == pytest.approx(expected, abs=1e-4)
    assert not found.capped.any()


def test_a_beam_of_one_takes_the_best_character_each_time():
    table, step, state = language(7, 2)
    found = beam_search(step, state, 9, 1, ONES)
    for row in range(2):
        last, expected = BOS, []
        while last != EOS and len(expected) < 9:
            last = int(table[row, last].argmax())
            expected.append(last)
        assert [i for i in found.ids[row].tolist() if i != PAD] == expected
        assert found.capped[row] == (expected[-1] != EOS)


@pytest.mark.parametrize("beam", [1, 2, 4])
def test_items_do_not_depend_on_their_batch(beam):
    for seed in range(30):
        _, step, state = language(seed, 5)
        together = beam_search(step, state, 12, beam, ONES)
        every = beam_search(step, state, 12, beam, ONES, every=True)
        for row in range(5):
            some = beam_search(step, (state[0][:, row : row + 1],), 12, beam, ONES, every=True)
            theirs = every._replace(
                **{k: v[row * beam : (row + 1) * beam] for k, v in every._asdict().items() if v is not None}
            )
            assert sentences(some) == sentences(theirs)
            alone = beam_search(step, (state[0][:, row : row + 1],), 12, beam, ONES)
            n = alone.ids.shape[1]
            assert together.ids[row, :n].tolist() == alone.ids[0].tolist(), (seed, row)
            assert (together.ids[row, n:] == PAD).all()
            assert together.capped[row] == alone.capped[0]


def test_at_the_cap_a_sentence_that_has_ended_is_preferred():
    for seed in range(30):
        _, step, state = language(seed, 5)
        wide = beam_search(step, state, 3, 50, ONES)
        assert not wide.capped.any()  # among so many some have ended


@pytest.mark.parametrize("seed", range(4))
def test_every_hypothesis_may_go_on_for_as_long_again_as_the_best(seed):
    table, step, state = language(seed, 2)
    found = beam_search(step, state, 4, 130, ONES, every=True)  # more than there are sentences
    assert len(found.ids) == 2 * 130
    for row in range(2):
        _, _, n = best_by_hand(table[row], 4)
        ended = [(*letters, EOS) for length in range(min(2 * n, 4)) for letters in product(LETTERS, repeat=length)]
        rows = [k for k in range(row * 130, (row + 1) * 130) if not found.capped[k]]
        paths = [tuple(i for i in found.ids[k].tolist() if i != PAD) for k in rows]
        assert sorted(paths) == sorted(ended)
        for k, path in zip(rows, paths, strict=True):
            assert found.log_probability[k].item() == pytest.approx(score(table[row], path), abs=1e-4)
            assert found.lengths[k] == len(path)


def test_loops_do_not_push_out_what_has_ended():
    table = torch.full((1, 66, 66), -torch.inf)
    a, b, c = LETTERS
    table[0, BOS, [EOS, a]] = torch.tensor([0.6, 0.4]).log()
    for letter in LETTERS:
        table[0, letter, [a, b, c, EOS]] = torch.tensor([0.97, 0.01, 0.01, 0.01]).log()
    found = beam_search(
        lambda ids, state: (table[0, ids[:, 0]], state), (torch.zeros(1, 1, 1),), 90, 4, ONES, every=True
    )
    assert [EOS] in sentences(found)


def test_samples_come_as_often_as_they_are_likely():
    table, step, state = language(3, 1)
    torch.manual_seed(0)
    many = (state[0].repeat(1, 4000, 1),)
    ids = sample(step, many, 30)
    assert ((ids == EOS).sum(1) <= 1).all() and not (ids == BOS).any()
    after = (ids == EOS).cumsum(1).roll(1, 1)[:, 1:].bool()
    assert (ids[:, 1:][after] == PAD).all() and (ids[:, 1:][~after] != PAD).all()
    for letter in (EOS, *LETTERS):
        assert (ids[:, 0] == letter).float().mean().item() == pytest.approx(
            table[0, BOS, letter].exp().item(), abs=0.03
        )


def test_a_step_without_numbers_is_sampled_from_all_the_same():
    def step(ids, state):
        return torch.full((2, 66), torch.nan), state

    assert sample(step, (torch.zeros(1, 2, 1),), 3).shape == (2, 3)


def test_a_word_that_is_spelled_is_worth_no_more_than_the_same_word_whole():
    word, spelled, rival = 10, (20, 21, 22, 23, 24, 25, 26, 27), 11
    sizes = ONES.clone()
    sizes[list(spelled[1:])] = 0  # it begins once

    def step(ids, state):
        log_p = torch.full((len(ids), 66), -torch.inf)
        for row, last in enumerate(ids[:, 0].tolist()):
            if last in spelled[:-1]:
                log_p[row, last + 1] = 0  # sure of every letter
                continue
            whole = 0.75 * 0.74  # three quarters whole, and a rival that is less likely than the word
            log_p[row, [word, spelled[0], rival]] = torch.tensor([whole, 0.25 * 0.74, 0.25]).log()
            if state[0][0, row, 0] > 5:
                log_p[row] = -torch.inf
                log_p[row, EOS] = 0
        words = (ids[:, 0] == word) | (ids[:, 0] == rival) | (ids[:, 0] == spelled[-1])
        return log_p, (state[0] + words[None, :, None],)

    greedy, wide = (beam_search(step, (torch.zeros(1, 1, 1),), 80, beam, sizes) for beam in (1, 4))
    assert wide.log_probability >= greedy.log_probability
    assert wide.ids[0].tolist().count(word) == greedy.ids[0].tolist().count(word) > 5


def test_where_loops_push_out_all_that_ended_the_best_stays_whatever_the_batch():
    a, b, c = LETTERS
    table = torch.full((2, 66, 66), -torch.inf)
    table[:, BOS, [a, b]] = torch.tensor([0.8, 0.2]).log()
    table[:, a] = torch.tensor(0.83 / 60).log()
    table[:, a, EOS] = torch.tensor(0.17).log()  # the best after two steps, so that the search ends after four
    table[0, b:, [b, c]] = torch.tensor(0.5).log()  # by then all paths of these letters are better
    table[1, b:, EOS] = 0

    def step(ids, state):
        return table[state[0][0, :, 0].long(), ids[:, 0]].clone(), state

    def search(*rows):
        return beam_search(step, (torch.tensor(rows)[None, :, None],), 40, 3, ONES, every=True)

    together, alone = search(0.0, 1.0), search(0.0)
    assert alone.capped.all() and alone.ids.shape[1] == 4
    expected = torch.tensor(0.2 * 0.5**3).log().expand(3)
    for found in (together, alone):
        assert found.capped[:3].all()
        torch.testing.assert_close(found.log_probability[:3], expected)
        assert all(set(row) <= {b, c, PAD} and sum(i != PAD for i in row) == 4 for row in found.ids[:3].tolist())
