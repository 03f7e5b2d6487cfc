"""Beam search against every sentence there is."""

from itertools import pairwise, product

import pytest
import torch

from skipmodal.models.search import LENGTH_POWER, beam_search, sample
from skipmodal.text import BOS, EOS, PAD

LETTERS = (3, 4, 5)  # the only characters of these languages


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


def best_by_hand(table, longest: int):
    """The first sentence that ends while it is the best of all sentences and beginnings of its length."""

    def score(path):
        return sum(table[x, y].item() for x, y in pairwise((BOS, *path)))

    ended = []
    for n in range(1, longest + 1):
        ended += [(*letters, EOS) for letters in product(LETTERS, repeat=n - 1)]
        every = ended + list(product(LETTERS, repeat=n))
        best = max(every, key=lambda path: score(path) / len(path) ** LENGTH_POWER)
        if best[-1] == EOS:
            break
    best = max(ended, key=lambda path: score(path) / len(path) ** LENGTH_POWER)
    return list(best), score(best)


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_beam_finds_the_best_sentence(seed):
    table, step, state = language(seed, 3)
    found = beam_search(step, state, 4, beam=60)
    for row in range(3):
        ids, score = best_by_hand(table[row], 4)
        assert [i for i in found.ids[row].tolist() if i != PAD] == ids
        assert found.log_probability[row].item() == pytest.approx(score, abs=1e-4)
    assert not found.capped.any()


def test_a_beam_of_one_takes_the_best_character_each_time():
    table, step, state = language(7, 2)
    found = beam_search(step, state, 9, beam=1)
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
        together = beam_search(step, state, 12, beam)
        for row in range(5):
            alone = beam_search(step, (state[0][:, row : row + 1],), 12, beam)
            n = alone.ids.shape[1]
            assert together.ids[row, :n].tolist() == alone.ids[0].tolist(), (seed, row)
            assert (together.ids[row, n:] == PAD).all()
            assert together.capped[row] == alone.capped[0]


def test_at_the_cap_a_sentence_that_has_ended_is_preferred():
    for seed in range(30):
        _, step, state = language(seed, 5)
        wide = beam_search(step, state, 3, beam=50)
        assert not wide.capped.any()  # among so many some have ended


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
