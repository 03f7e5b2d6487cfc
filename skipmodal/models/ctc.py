"""CTC over the 66 symbols (Graves et al., ICML 2006): padding is the blank, and the end is not written."""

import math
from collections import defaultdict

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from skipmodal.models.layers import length_mask, ratio
from skipmodal.models.search import Sentences
from skipmodal.text import BOS, EOS, PAD

UNLIKELY = -7.0  # nats of a letter below which no prefix is tried with it at a frame
IMPOSSIBLE = -1e4  # nats; finite, so that what is impossible can still be compared by all else


def ctc_loss(logits: Tensor, frames: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
    """Nats a character: logits (B, T, 66) with frames (B,), texts ids (B, L) with lengths (B,), their end included.

    Recordings with fewer frames than letters teach nothing.
    """
    return ratio(spent(logits, frames, ids, lengths - 1).sum(), lengths.sum())


def spent(logits: Tensor, frames: Tensor, ids: Tensor, letters: Tensor) -> Tensor:
    """Nats of each text (B,): -log of its probability, over all paths; ids (B, L) with letters (B,), no end counted.

    0, without a gradient, where the letters don't fit into the frames.
    """
    return _ctc(logits, frames, ids, letters, zero_infinity=True)


def log_probability(logits: Tensor, frames: Tensor, ids: Tensor, letters: Tensor) -> Tensor:
    """Of each text (B,), as `spent` takes them, but IMPOSSIBLE where the letters don't fit into the frames."""
    return (-_ctc(logits, frames, ids, letters, zero_infinity=False)).clamp(min=IMPOSSIBLE)


def _ctc(logits: Tensor, frames: Tensor, ids: Tensor, letters: Tensor, zero_infinity: bool) -> Tensor:
    log_p = logits.float().log_softmax(2).transpose(0, 1)
    if log_p.device.type == "mps":  # for which torch has had no CTC
        log_p, ids, frames, letters = log_p.cpu(), ids.cpu(), frames.cpu(), letters.cpu()
    each = F.ctc_loss(log_p, ids, frames, letters, blank=PAD, reduction="none", zero_infinity=zero_infinity)
    return each.to(logits.device)


def greedy(logits: Tensor, frames: Tensor, max_length: int) -> Sentences:
    """The likeliest symbol of each frame, repeats and blanks dropped: logits (B, T, 66), frames (B,)."""
    log_p, best = _readable(logits).max(2)
    mask = length_mask(frames, logits.shape[1])
    return sentences(collapse(best, mask), (log_p * mask).sum(1), max_length)


def beam_search(logits: Tensor, frames: Tensor, max_length: int, beam: int) -> Sentences:
    """The `beam` likeliest texts of each item, row b * beam + k the k-th of item b, those that are missing capped.

    logits (B, T, 66), frames (B,). Prefix search, which adds up the paths of a text (Graves, ICML 2006; Hannun et al.,
    First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs, 2014).
    """
    log_p = _readable(logits).tolist()
    every = [_prefixes(item[:count], beam) for item, count in zip(log_p, frames.tolist(), strict=True)]
    rows = [torch.tensor(text, dtype=torch.long, device=logits.device) for texts in every for text, _ in texts]
    scores = torch.tensor([score for texts in every for _, score in texts], device=logits.device)
    found = sentences(rows, scores, max_length)
    return found._replace(capped=found.capped | scores.isinf(), log_probability=scores.clamp(min=IMPOSSIBLE))


def _readable(logits: Tensor) -> Tensor:
    """Log-probabilities of blanks and of what can be read, which a start or an end can't: logits (B, T, 66)."""
    logits = logits.float().clone()
    logits[:, :, (BOS, EOS)] = -torch.inf
    return logits.log_softmax(2)


def _prefixes(log_p: list[list[float]], beam: int) -> list[tuple[tuple[int, ...], float]]:
    """The likeliest texts of log-probabilities (T, symbols), and theirs; -inf of those that there are too few of."""
    # Log-probabilities of the paths that end in a blank, and of those that end in the last letter.
    prefixes: dict[tuple[int, ...], list[float]] = {(): [0.0, -math.inf]}
    for row in log_p:
        letters = [symbol for symbol, likely in enumerate(row) if likely > UNLIKELY and symbol != PAD]
        longer: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [-math.inf, -math.inf])
        for prefix, (blank, letter) in prefixes.items():
            either, same = _plus(blank, letter), longer[prefix]
            same[0] = _plus(same[0], either + row[PAD])
            if prefix:
                same[1] = _plus(same[1], letter + row[prefix[-1]])
            for symbol in letters:  # the same once more needs a blank between
                before, new = blank if prefix[-1:] == (symbol,) else either, longer[*prefix, symbol]
                new[1] = _plus(new[1], before + row[symbol])
        prefixes = dict(sorted(longer.items(), key=lambda each: -_plus(*each[1]))[:beam])
    found = [(prefix, _plus(*each)) for prefix, each in prefixes.items()]
    return found + [((), -math.inf)] * (beam - len(found))


def _plus(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    most = max(a, b)
    return most if most == -math.inf else most + math.log1p(math.exp(min(a, b) - most))


def collapse(path: Tensor, mask: Tensor) -> list[Tensor]:
    """Paths (B, T) with mask (B, T) -> the letters of each: repeats, then blanks, dropped."""
    kept = mask & (path != PAD) & (path != F.pad(path[:, :-1], (1, 0), value=PAD))
    return [row[keep] for row, keep in zip(path, kept, strict=True)]


def sentences(rows: list[Tensor], log_probability: Tensor, max_length: int) -> Sentences:
    """The letters of B items and their paths' log-probability (B,) -> sentences with an end, `max_length` at most."""
    device = log_probability.device
    capped = torch.tensor([len(row) >= max_length for row in rows], device=device)
    ended = [F.pad(row[: max_length - 1], (0, 1), value=EOS) for row in rows]
    lengths = torch.tensor([len(row) for row in ended], device=device)
    return Sentences(pad_sequence(ended, batch_first=True), capped, log_probability, lengths)
