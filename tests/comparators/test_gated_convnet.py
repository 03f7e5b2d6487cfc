"""Gated convolutions learn a batch by heart with either criterion, do not hear padding, and ASG sums what it says."""

from itertools import groupby, pairwise, product

import pytest
import torch

from skipmodal import text
from skipmodal.comparators._asg import asg_loss, best_paths, marked, unmarked
from skipmodal.comparators.gated_convnet import GatedConv
from skipmodal.text import EOS, SYMBOLS
from tests.comparators.learning import batch_saying, learn

SIZES = {"layers": 3, "channels": (16, 24), "kernels": (3, 5), "dropout": 0.0}


@pytest.mark.parametrize("criterion", ["ctc", "asg"])
def test_it_learns_a_batch_by_heart_and_does_not_hear_padding(criterion):
    batch = batch_saying("abbb", "ba", "cc")
    system, first, last = learn("gated_convnet", 120, batch, criterion=criterion, **SIZES)
    assert last < 0.1 * first
    with torch.no_grad():
        latent = system.encode_speech(batch.mel, batch.mel_lengths)
        found = system.generate_text(latent, 20)
        assert [text.decode(ids) for ids in found.ids.tolist()] == ["abbb", "ba", "cc"]
        assert not found.capped.any() and (found.log_probability > -1).all() and (found.log_probability <= 0).all()
        batch.mel[1, batch.mel_lengths[1] :] = 9.0
        assert torch.equal(system.encode_speech(batch.mel, batch.mel_lengths).u, latent.u)
        alone = system.encode_speech(batch.mel[1:2, : batch.mel_lengths[1]], batch.mel_lengths[1:2])
        torch.testing.assert_close(alone.u, latent.u[1:2, : alone.u.shape[1]])
        short = system.generate_text(latent, 3)
    assert short.capped.tolist() == [True, False, False] and text.decode(short.ids[0].tolist()) == "ab"


def test_a_gate_keeps_the_variance_and_closes():
    torch.manual_seed(0)
    layer = GatedConv(64, 64, 5, 1, 0.0)
    x, lengths = torch.randn(4, 200, 64), torch.tensor([200] * 4)
    assert 0.5 < layer(x, lengths)[0].var().item() < 2
    with torch.no_grad():
        layer.conv.bias[64:] = -1e4
    assert layer(x, lengths)[0].abs().max() < 1e-6


def test_repeats_are_marked():
    for letters in ("abc", "aab", "aaab", "aaaab", "aaaaaaa", ""):
        ids = text.encode(letters)[:-1]
        symbols = marked(ids)
        assert all(a != b for a, b in pairwise(symbols))
        assert unmarked(symbols) == ids
    assert unmarked([0, 1, 5, 0]) == [5, 5]


@pytest.fixture
def small():
    """Scores of items with 4 and 3 frames, in which six of the symbols are possible, and transitions."""
    torch.manual_seed(0)
    some = [0, 1, *text.encode("abcd")[:-1]]
    scores = torch.full((2, 4, len(SYMBOLS)), -1e4)
    scores[:, :, some] = torch.randn(2, 4, 6)
    scores[:, :, EOS] = 50.0  # never written, whatever its score
    scores[1, 3] = 50.0  # padding
    transitions = torch.randn(len(SYMBOLS), len(SYMBOLS))
    return some, scores.requires_grad_(), transitions.requires_grad_(), torch.tensor([4, 3])


def enumerated(some, scores, transitions, frames):
    """(symbols, log of e to the score) of every path."""
    for path in product(some, repeat=frames):
        steps = sum(transitions[a, b] for a, b in pairwise(path))
        yield [symbol for symbol, _ in groupby(path)], steps + sum(scores[t, a] for t, a in enumerate(path))


def test_asg_is_the_sum_over_all_paths(small):
    some, scores, transitions, frames = small
    ids, lengths = torch.tensor([text.encode("abb"), [*text.encode("da"), 0]]), torch.tensor([4, 3])
    expected = torch.zeros(())
    with torch.no_grad():
        for row in range(2):
            paths = list(enumerated(some, scores[row], transitions, int(frames[row])))
            target = marked(ids[row, : lengths[row] - 1].tolist())
            every = torch.stack([score for _, score in paths]).logsumexp(0)
            expected += every - torch.stack([score for path, score in paths if path == target]).logsumexp(0)
    loss = asg_loss(scores, transitions, frames, ids, lengths)
    torch.testing.assert_close(loss, expected / 7)
    loss.backward()
    assert (
        scores.grad.isfinite().all() and scores.grad[1, 3].abs().max() == 0 and scores.grad[:, :, EOS].abs().max() == 0
    )
    assert transitions.grad.isfinite().all() and transitions.grad.abs().max() > 0
    found, log_p = best_paths(scores.detach(), transitions.detach(), frames)
    with torch.no_grad():
        for row in range(2):
            paths = list(enumerated(some, scores[row], transitions, int(frames[row])))
            best, score = max(paths, key=lambda each: float(each[1]))
            assert found[row] == unmarked(best)
            torch.testing.assert_close(log_p[row], score - torch.stack([each for _, each in paths]).logsumexp(0))


def test_a_text_longer_than_its_recording_teaches_nothing(small):
    _, scores, transitions, frames = small
    ids = torch.tensor([text.encode("abcda"), [*text.encode("abcd"), 0]])
    loss = asg_loss(scores, transitions, frames, ids, torch.tensor([6, 5]))
    loss.backward()
    assert loss == 0 and scores.grad.abs().max() == 0
