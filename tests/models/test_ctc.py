"""CTC: probabilities of texts that fit, that don't, that are empty, and that are certain."""

import torch
from torch import Tensor

from skipmodal import text
from skipmodal.models.ctc import IMPOSSIBLE, ctc_loss, greedy, log_probability, spent

FRAMES = torch.tensor([3])


def certain(*path: str) -> Tensor:
    """Logits (1, T, 66) of one path, `_` being the blank."""
    ids = torch.tensor([text.encode(letter)[0] if letter != "_" else text.PAD for letter in path])
    return torch.zeros(1, len(path), len(text.SYMBOLS)).scatter(2, ids[None, :, None], 100.0)


def of(said: str, logits: Tensor) -> tuple[float, float]:
    """The log-probability of a text by both functions."""
    ids, letters = torch.tensor([text.encode(said)]), torch.tensor([len(said)])
    return -spent(logits, FRAMES, ids, letters).item(), log_probability(logits, FRAMES, ids, letters).item()


def test_the_only_path_is_certain_and_read():
    logits = certain("a", "_", "a")
    assert of("aa", logits) == (0, 0)
    assert [text.decode(row) for row in greedy(logits, FRAMES, 9).ids.tolist()] == ["aa"]


def test_any_path_counts():
    """Of three frames with even odds, ab has 5 paths: aab, abb, _ab, a_b, ab_."""
    logits = torch.zeros(1, 3, len(text.SYMBOLS))
    expected = torch.tensor(5 / len(text.SYMBOLS) ** 3).log().item()
    torch.testing.assert_close(of("ab", logits), (expected, expected))
    torch.testing.assert_close(of("", logits)[1], -3 * torch.tensor(float(len(text.SYMBOLS))).log().item())


def test_what_does_not_fit_teaches_nothing_and_is_never_likelier():
    logits = certain("a", "_", "a").requires_grad_()
    assert of("aaa", logits) == (0, IMPOSSIBLE) == of("abab", logits)  # a blank has to part two equal letters
    loss = ctc_loss(logits, FRAMES, torch.tensor([text.encode("aaa")]), torch.tensor([4]))
    assert torch.equal(torch.autograd.grad(loss, logits)[0], torch.zeros_like(logits))
