"""What a text costs, against the cross-entropy of all logits, which its losses never make."""

import pytest
import torch
import torch.nn.functional as F

from skipmodal.models.decoders.written import Choices, Copied, Written
from skipmodal.models.layers import Packing
from skipmodal.text import PAD

WHOLE, NAMES = 7, 3
TARGET = torch.tensor([[3, 8, 1], [4, 9, PAD], [6, PAD, PAD]])  # 8 and 9 are names


def choices(copying=True, hidden=True):
    torch.manual_seed(0)
    packing = Packing(TARGET != PAD)
    vocabulary = torch.randn(len(packing.places), WHOLE, requires_grad=True)
    scores = torch.randn(len(packing.places), 4, requires_grad=True)
    tokens = torch.tensor(
        [[3, 8, PAD, 5], [3, 8, PAD, 5], [3, 8, PAD, 5], [4, 9, 7, PAD], [4, 9, 7, PAD], [5, 6, 7, 6]]
    )
    bars = torch.rand(tokens.shape) < 0.5 if hidden else torch.zeros(tokens.shape, dtype=torch.bool)
    copied = Copied(scores.masked_fill(tokens == PAD, -torch.inf), tokens, bars) if copying else None
    return Choices(packing, vocabulary, NAMES, copied), vocabulary, scores


@pytest.mark.parametrize(("copying", "hidden"), [(False, False), (True, False), (True, True)])
def test_nats_and_gradients_are_those_of_all_logits(copying, hidden):
    found, vocabulary, scores = choices(copying, hidden)
    logits = found.logits()
    assert logits.shape == (3, 3, WHOLE + NAMES) and not logits[TARGET == PAD].any()
    wanted = F.cross_entropy(logits[TARGET != PAD], TARGET[TARGET != PAD], reduction="none")
    spent = found.spent(TARGET)
    torch.testing.assert_close(spent, wanted)
    parts = (vocabulary, scores) if copying else (vocabulary,)
    able = (wanted < 1000).float()  # names that can't be copied cost ten thousand
    ours, theirs = (torch.autograd.grad((able * each).sum(), parts, retain_graph=True) for each in (spent, wanted))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.isfinite(one).all()
        torch.testing.assert_close(one, other)


def test_rows_have_no_choices_left():
    written = Written(TARGET, (TARGET != PAD).long(), choices()[0], torch.rand(3, 3, 2))
    torch.testing.assert_close(written.spent().sum(), written.choices.spent(TARGET).sum())
    some = written.rows(torch.tensor([2, 0]))
    assert torch.equal(some.target, TARGET[[2, 0]]) and torch.equal(some.taken, written.taken[[2, 0]])
    assert some.choices is None
