"""CTC over the 66 symbols (Graves et al., ICML 2006): padding is the blank, and the end is not written."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from skipmodal.models.layers import length_mask, ratio
from skipmodal.models.search import Sentences
from skipmodal.text import EOS, PAD


def ctc_loss(logits: Tensor, frames: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
    """Nats a character: logits (B, T, 66) with frames (B,), texts ids (B, L) with lengths (B,), their end included.

    Recordings with fewer frames than letters teach nothing.
    """
    log_p = logits.float().log_softmax(2).transpose(0, 1)
    letters = lengths - 1
    if log_p.device.type == "mps":  # for which torch has had no CTC
        log_p, ids, frames, letters = log_p.cpu(), ids.cpu(), frames.cpu(), letters.cpu()
    spent = F.ctc_loss(log_p, ids, frames, letters, blank=PAD, reduction="none", zero_infinity=True)
    return ratio(spent.sum().to(logits.device), lengths.sum())


def greedy(logits: Tensor, frames: Tensor, max_length: int) -> Sentences:
    """The likeliest symbol of each frame, repeats and blanks dropped: logits (B, T, 66), frames (B,)."""
    logits = logits.clone()
    logits[:, :, EOS] = -torch.inf
    log_p, best = logits.float().log_softmax(2).max(2)
    mask = length_mask(frames, logits.shape[1])
    kept = mask & (best != PAD) & (best != F.pad(best[:, :-1], (1, 0), value=PAD))
    rows = [row[keep] for row, keep in zip(best, kept, strict=True)]
    capped = torch.tensor([len(row) >= max_length for row in rows], device=logits.device)
    ended = [F.pad(row[: max_length - 1], (0, 1), value=EOS) for row in rows]
    lengths = torch.tensor([len(row) for row in ended], device=logits.device)
    return Sentences(pad_sequence(ended, batch_first=True), capped, (log_p * mask).sum(1), lengths)
