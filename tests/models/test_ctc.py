"""CTC: probabilities of texts that fit, that don't, that are empty, and that are certain."""

from collections import defaultdict
from itertools import product

import torch
from torch import Tensor

from skipmodal import text
from skipmodal.models.ctc import IMPOSSIBLE, beam_search, ctc_loss, greedy, log_probability, spent

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


def test_a_beam_finds_the_likeliest_texts_and_adds_up_their_paths():
    torch.manual_seed(0)
    symbols = [text.PAD, *text.encode("ab")[:2]]
    logits = torch.full((2, 4, len(text.SYMBOLS)), -30.0)
    logits[:, :, symbols] = torch.randn(2, 4, 3)
    frames, likely = torch.tensor([4, 3]), []
    for item, count in zip(logits.log_softmax(2), frames.tolist(), strict=True):
        total = defaultdict(float)
        for path in product(symbols, repeat=count):
            kept = [s for i, s in enumerate(path) if s != text.PAD and path[i - 1 : i] != (s,)]
            total[tuple(kept)] += item[range(count), path].sum().exp().item()
        likely.append(sorted(total.items(), key=lambda each: -each[1]))
    found = beam_search(logits, frames, 9, 50)  # more than there are
    for item, expected in enumerate(likely):
        rows = [row for row in range(50 * item, 50 * (item + 1)) if not found.capped[row]]
        ids = [tuple(i for i in found.ids[row].tolist() if i)[:-1] for row in rows]
        assert ids == [each for each, _ in expected]
        p = found.log_probability[rows].exp()
        torch.testing.assert_close(p, torch.tensor([each for _, each in expected]), rtol=1e-4, atol=1e-6)
    narrow = beam_search(logits, frames, 9, 2).ids.view(2, 2, -1)
    for ids, expected in zip(narrow, likely, strict=True):
        assert tuple(i for i in ids[0].tolist() if i)[:-1] == expected[0][0]
    assert beam_search(logits, frames, 1, 50).capped.sum() > found.capped.sum()  # only one without letters is so short


def test_what_does_not_fit_teaches_nothing_and_is_never_likelier():
    logits = certain("a", "_", "a").requires_grad_()
    assert of("aaa", logits) == (0, IMPOSSIBLE) == of("abab", logits)  # a blank has to part two equal letters
    loss = ctc_loss(logits, FRAMES, torch.tensor([text.encode("aaa")]), torch.tensor([4]))
    assert torch.equal(torch.autograd.grad(loss, logits)[0], torch.zeros_like(logits))
