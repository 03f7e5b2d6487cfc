"""Policy learning: fewer errors than the greedy transcript are made likelier, and the expected error goes down."""

import pytest
import torch

from skipmodal import text
from skipmodal.comparators.policy_learning import edits, policy_loss
from skipmodal.models.ctc import greedy, spent
from tests.comparators.learning import batch_saying, learn

SIZES = {"channels": 4, "width": 24, "layers": 2, "dropout": 0.0, "samples": 2}


@pytest.mark.parametrize("errors", ["words", "characters"])
def test_it_learns_a_batch_by_heart_and_does_not_hear_padding(errors):
    batch = batch_saying("a b c", "b a", "c")
    system, first, last = learn("policy_learning", 150, batch, errors=errors, **SIZES)
    assert last < 0.1 * first
    with torch.no_grad():
        latent = system.encode_speech(batch.mel, batch.mel_lengths)
        found = system.generate_text(latent, 20)
        assert [text.decode(ids) for ids in found.ids.tolist()] == ["a b c", "b a", "c"]
        batch.mel[1, batch.mel_lengths[1] :] = 9.0
        assert torch.equal(system.encode_speech(batch.mel, batch.mel_lengths).u, latent.u)


def likely(*paths, surely=2.0):
    """Logits (B, T, 66) of one path an item, whose letters are as much likelier than the others of these paths."""
    ids = torch.tensor([[text.encode(letter)[0] if letter != "_" else 0 for letter in path] for path in paths])
    logits = torch.full((*ids.shape, 66), -20.0)
    logits[:, :, ids.unique()] = 0.0
    return logits.scatter(2, ids[:, :, None], surely).requires_grad_()


def transcripts(logits, frames, *texts):
    """Log-probabilities (B,) of texts."""
    ids = torch.zeros(len(texts), 8, dtype=torch.long)
    for row, each in zip(ids, texts, strict=True):
        row[: len(each)] = torch.tensor(text.encode(each)[:-1], dtype=torch.long)
    return -spent(logits, frames, ids, torch.tensor([len(each) for each in texts]))


def test_its_gradient_raises_what_has_fewer_errors_than_the_greedy_transcript():
    torch.manual_seed(0)
    logits, frames = likely("a_ b_", "b_ a_", surely=1.0), torch.tensor([5, 5])
    assert [text.decode(row) for row in greedy(logits.detach(), frames, 9).ids.tolist()] == ["a b", "b a"]
    ids = torch.tensor([text.encode("b b"), text.encode("b b")])  # greedy has one of two words wrong
    loss = policy_loss(logits, frames, ids, 500, words=True)
    (gradient,) = torch.autograd.grad(loss, logits)
    with torch.no_grad():
        moved = logits - 0.5 * gradient
        for better, greedy_one in (("b b", "a b"), ("b b", "b a")):
            before = transcripts(logits, frames, *[better] * 2) - transcripts(logits, frames, *[greedy_one] * 2)
            after = transcripts(moved, frames, *[better] * 2) - transcripts(moved, frames, *[greedy_one] * 2)
            assert (after > before).all()
        assert (transcripts(moved, frames, "b b", "b b") > transcripts(logits, frames, "b b", "b b")).all()


def test_the_expected_error_goes_down_without_ctc():
    torch.manual_seed(0)
    logits, frames = likely("a_ b_c", "b_ a_c", "abc___", surely=1.0), torch.tensor([6, 5, 3])
    ids = torch.tensor([text.encode("b a"), text.encode("b a"), [*text.encode("b"), 0, 0]])
    optimizer = torch.optim.Adam([logits], 0.1)
    values = []
    for _ in range(60):
        loss = policy_loss(logits, frames, ids, 30, words=False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.3 * values[0]
    assert logits.grad[2, 3:].abs().max() == 0  # padding


def test_the_value_is_the_mean_error_rate_also_where_nothing_is_written():
    sure = likely("a_ b_", "_____", surely=40.0)
    ids = torch.tensor([text.encode("a c"), text.encode("a c")])
    assert policy_loss(sure, torch.tensor([5, 5]), ids, 3, words=True).item() == pytest.approx(0.75)
    nothing = policy_loss(sure[1:], torch.tensor([5]), ids[1:], 1, words=True)
    nothing.backward()
    assert nothing.item() == 1 and sure.grad.isfinite().all()


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("", "", 0), ("abc", "", 3), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "abc", 0), ("ab", "ba", 2)],
)
def test_edits(a, b, distance):
    assert edits(a, b) == distance
