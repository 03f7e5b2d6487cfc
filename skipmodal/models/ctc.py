"""CTC over the 66 symbols (Graves et al., ICML 2006): padding is the blank, and the end is not written."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from skipmodal.models.layers import length_mask, ratio
from skipmodal.models.search import Sentences
from skipmodal.text import BOS, EOS, PAD

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
    logits = logits.clone()
    logits[:, :, (BOS, EOS)] = -torch.inf
    log_p, best = logits.float().log_softmax(2).max(2)
    mask = length_mask(frames, logits.shape[1])
    return sentences(collapse(best, mask), (log_p * mask).sum(1), max_length)


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
