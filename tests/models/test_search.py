"""Beam search against every sentence there is."""

from itertools import pairwise, product

import pytest
import torch

from skipmodal.models.search import LENGTH_POWER, beam_search
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

    def step(ids, position, state):
        (item,) = state
        return table[item[0, :, 0].long(), ids[:, 0]], state

    return table, step, (torch.arange(rows, dtype=torch.float)[None, :, None],)


def best_by_hand(table, longest: int):
    """The best-scored sentence of at most `longest` symbols."""
    found = []
    for n in range(longest):
        for letters in product(LETTERS, repeat=n):
            path = [BOS, *letters, EOS]
            score = sum(table[a, b].item() for a, b in pairwise(path))
            found.append((score / (n + 1) ** LENGTH_POWER, path[1:], score))
    return max(found)


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_finds_the_best_sentence(seed):
    table, step, state = language(seed, 3)
    found = beam_search(step, state, 4, beam=40)
    for row in range(3):
        _, ids, score = best_by_hand(table[row], 4)
        if not found.capped[row]:
            assert [i for i in found.ids[row].tolist() if i != PAD] == ids
            assert found.log_probability[row].item() == pytest.approx(score, abs=1e-4)
    assert not found.capped.all()


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


def test_items_do_not_depend_on_their_batch():
    _, step, state = language(3, 5)
    together = beam_search(step, state, 8, beam=3)
    for row in range(5):
        alone = beam_search(step, (state[0][:, row : row + 1],), 8, beam=3)
        n = alone.ids.shape[1]
        assert together.ids[row, :n].tolist() == alone.ids[0].tolist()
