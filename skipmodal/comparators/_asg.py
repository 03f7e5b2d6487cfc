"""The auto segmentation criterion (Collobert et al., arXiv 1609.03193): CTC without blanks, with learned transitions.

Every frame is a letter, and a letter lasts as many frames as it likes. A letter that is repeated in the text is written
as one of two symbols for "once more" and "twice more", which no text needs otherwise: padding and the start.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from skipmodal.models.layers import length_mask, ratio
from skipmodal.text import BOS, EOS, PAD

ONCE, TWICE = PAD, BOS
NEVER = -1e4  # finite, so that gradients are


def marked(letters: list[int]) -> list[int]:
    """Letters without an end -> the same with repeats marked, so that no two neighbours are equal."""
    out: list[int] = []
    previous, run = None, 0
    for letter in letters:
        run = run + 1 if letter == previous else 0
        previous = letter
        if run % 3 == 2:
            out[-1] = TWICE
        else:
            out.append(ONCE if run % 3 == 1 else letter)
    return out


def unmarked(symbols: list[int]) -> list[int]:
    """The inverse; marks that follow no letter are dropped."""
    out: list[int] = []
    for symbol in symbols:
        times = {ONCE: 1, TWICE: 2}.get(symbol)
        out += [symbol] if times is None else out[-1:] * times
    return out


def asg_loss(scores: Tensor, transitions: Tensor, frames: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
    """Nats a character: scores (B, T, 66) with frames (B,), transitions (66, 66) from row to column.

    Texts ids (B, L) with lengths (B,), their end included. Recordings with fewer frames than symbols, and empty texts,
    teach nothing.
    """
    with torch.autocast(scores.device.type, enabled=False):  # a sum over all paths in 16 bits is off by a fifth
        return _asg_loss(scores.float(), transitions.float(), frames, ids, lengths)


def _asg_loss(scores: Tensor, transitions: Tensor, frames: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
    rows = [marked(row[: n - 1]) for row, n in zip(ids.tolist(), lengths.tolist(), strict=True)]
    targets = pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True).to(ids.device)
    sizes = torch.tensor([len(row) for row in rows], device=ids.device)
    fits = (sizes > 0) & (sizes <= frames)
    scores = _allowed(scores)
    if not fits.any():
        return ratio(0 * (scores.sum() + transitions.sum()), lengths.sum())
    scores, frames, targets, sizes = scores[fits], frames[fits], targets[fits], sizes[fits]
    spent = _every_path(scores, transitions, frames) - _paths_of(scores, transitions, frames, targets, sizes)
    return ratio(spent.sum(), lengths.sum())


def best_paths(scores: Tensor, transitions: Tensor, frames: Tensor) -> tuple[list[list[int]], Tensor]:
    """The likeliest letters of each item, by Viterbi's algorithm, and the log-probability of their paths (B,)."""
    scores, transitions = _allowed(scores), transitions.float()
    alpha, steps = scores[:, 0], []
    for t in range(1, scores.shape[1]):
        best, came = (alpha[:, :, None] + transitions).max(1)
        going = (t < frames)[:, None]
        alpha = torch.where(going, best + scores[:, t], alpha)
        steps.append(torch.where(going, came, torch.arange(alpha.shape[1], device=came.device)))
    score, last = alpha.max(1)
    path = [last]
    for came in reversed(steps):
        path.append(came.gather(1, path[-1][:, None])[:, 0])
    found = []
    for row, n in zip(torch.stack(path[::-1], 1).tolist(), frames.tolist(), strict=True):
        row = row[:n]
        found.append(unmarked([symbol for symbol, before in zip(row, [None, *row], strict=False) if symbol != before]))
    return found, (score - _every_path(scores, transitions, frames)).clamp(max=0)  # a sure path's is a rounding error


def _allowed(scores: Tensor) -> Tensor:
    """In 32 bits; the end is never written."""
    return scores.float().index_fill(2, torch.tensor(EOS, device=scores.device), NEVER)


def _every_path(scores: Tensor, transitions: Tensor, frames: Tensor) -> Tensor:
    """Log of the summed exponentials of all paths (B,)."""
    alpha, highest = scores[:, 0], transitions.max().detach()
    weights = (transitions - highest).exp()
    for t in range(1, scores.shape[1]):
        top = alpha.max(1, keepdim=True).values.detach()
        reached = ((alpha - top).exp() @ weights).clamp(min=1e-30).log() + top + highest + scores[:, t]
        alpha = torch.where((t < frames)[:, None], reached, alpha)
    return alpha.logsumexp(1)


def _paths_of(scores: Tensor, transitions: Tensor, frames: Tensor, targets: Tensor, sizes: Tensor) -> Tensor:
    """The same of the paths that spell targets (B, S) with sizes (B,)."""
    own = scores.gather(2, targets[:, None].expand(-1, scores.shape[1], -1))  # (B, T, S)
    valid = length_mask(sizes, targets.shape[1])
    stay = transitions[targets, targets]
    move = F.pad(transitions[targets[:, :-1], targets[:, 1:]], (1, 0), value=NEVER)
    alpha = own[:, 0].masked_fill(torch.arange(targets.shape[1], device=own.device) > 0, NEVER)
    for t in range(1, scores.shape[1]):
        moved = F.pad(alpha[:, :-1], (1, 0), value=NEVER) + move
        reached = torch.logaddexp(alpha + stay, moved) + own[:, t]
        alpha = torch.where((t < frames)[:, None] & valid, reached, alpha)
    return alpha.gather(1, sizes[:, None] - 1)[:, 0]
