"""Which character of a sentence each frame of a recording belongs to: learned in training, predicted in synthesis."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.audio import torchaudio_functional
from skipmodal.models.layers import length_mask
from skipmodal.text import PAD, SYMBOLS

GUIDE_WIDTH = 0.2  # g of Tachibana et al.
PRIOR_WIDTH = 0.1  # how far from the diagonal a character is looked for, as a part of the sentence
BLANK = -1.0  # log of the weight of no character beside theirs, in the forward sum
MASKED = -1e4  # finite: CTC's gradient has none for infinity


class Timing(NamedTuple):
    """Of teacher forcing: the predicted duration of each character, and the one of the alignment."""

    predicted: Tensor  # (B, L), logarithms of frames
    durations: Tensor  # (B, L), frames
    scores: Tensor  # (B, T, L), of `Aligner`
    lengths: Tensor  # (B,) characters
    prosody: tuple[Tensor, Tensor]  # (B, L, PROSODY): predicted, and the recording's


class Aligner(nn.Module):
    """How well each frame goes with each character, from the sound and the spelling around them (Badlani et al., One
    TTS Alignment To Rule Them All, ICASSP 2022).
    """

    def __init__(self, n_mels: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(SYMBOLS), width, padding_idx=PAD)
        self.text = nn.Sequential(nn.Conv1d(width, width, 5, padding=2), nn.ReLU(), nn.Conv1d(width, width, 1))
        self.sound = nn.Sequential(nn.Conv1d(n_mels, width, 5, padding=2), nn.ReLU(), nn.Conv1d(width, width, 1))

    def forward(self, ids: Tensor, lengths: Tensor, mel: Tensor, mel_lengths: Tensor) -> Tensor:
        """ids (B, L), mel (B, T, n_mels), their lengths (B,) -> scores (B, T, L), MASKED in the padding of the text."""
        keys = self.text(self.embed(ids).transpose(1, 2))
        mel = mel * length_mask(mel_lengths, mel.shape[1])[:, :, None]
        queries = self.sound(mel.transpose(1, 2)).transpose(1, 2)
        t, n = torch.arange(mel.shape[1], device=mel.device), torch.arange(ids.shape[1], device=mel.device)
        off = (t / mel_lengths[:, None])[:, :, None] - (n / lengths[:, None])[:, None, :]
        scores = queries * keys.shape[1] ** -0.5 @ keys - off**2 / (2 * PRIOR_WIDTH**2)
        return scores.masked_fill(~length_mask(lengths, ids.shape[1])[:, None], MASKED)


def forward_sum(scores: Tensor, lengths: Tensor, mel_lengths: Tensor) -> Tensor:
    """Minus the log likelihood of all ways through a sentence in order, summed: CTC with the characters as classes.

    scores (B, T, L) as `Aligner` gives them -> scalar. Recordings with fewer frames than characters teach nothing.
    """
    device = scores.device
    if device.type == "mps":  # for which torch has had no CTC
        scores, lengths, mel_lengths = scores.cpu(), lengths.cpu(), mel_lengths.cpu()
    log_p = F.pad(scores.float().log_softmax(2), (1, 0), value=BLANK).log_softmax(2).transpose(0, 1)
    targets = torch.arange(1, log_p.shape[2], device=scores.device).expand(len(scores), -1)
    sums = F.ctc_loss(log_p, targets, mel_lengths, lengths, reduction="none", zero_infinity=True)
    return sums.sum().to(device)


@torch.no_grad()
def align(scores: Tensor, lengths: Tensor, mel_lengths: Tensor) -> Tensor:
    """The likeliest way: frames of each character (B, L), in sum mel_lengths, at least one where there are enough.

    Monotonic alignment search (Kim et al., Glow-TTS, NeurIPS 2020), which is a CTC alignment without blanks.
    Raises UserError where torchaudio can't be loaded.
    """
    forced_align = torchaudio_functional().forced_align
    log_p = F.pad(scores.float().log_softmax(2), (1, 0), value=-1e9).cpu()  # the first class is the blank
    durations = torch.zeros(len(scores), scores.shape[2], dtype=torch.long)
    for item, (characters, frames) in enumerate(zip(lengths.tolist(), mel_lengths.tolist(), strict=True)):
        targets = torch.arange(1, min(characters, frames) + 1)
        labels, _ = forced_align(log_p[item : item + 1, :frames], targets[None])
        durations[item] = torch.bincount(labels[0].long() - 1, minlength=scores.shape[2])
    return durations.to(scores.device)


def spread(durations: Tensor, r: int, steps: int) -> tuple[Tensor, Tensor]:
    """Durations in frames (B, L), whole or not -> weights (B, steps, L): how much of each r frames is a character's;
    and (B, steps, 2) where in it they lie, from 0 to 1, and the logarithm of its duration.
    """
    ends = durations.cumsum(1)[:, None]
    starts = ends - durations[:, None]
    edges = r * torch.arange(steps + 1, device=durations.device)[:, None]
    weights = (torch.minimum(ends, edges[1:]) - torch.maximum(starts, edges[:-1])).clamp(min=0) / r
    long = durations[:, None].clamp(min=1e-3)
    inside = (((edges[1:] + edges[:-1]) / 2 - starts) / long).clamp(0, 1)
    place = torch.stack([(weights * inside).sum(2), (weights * long.log()).sum(2)], 2)
    return weights, place


def guided_attention(weights: Tensor, along: Tensor, steps: Tensor, tokens: Tensor) -> Tensor:
    """Weight far off the diagonal, summed over the steps (Tachibana et al., ICASSP 2018, section 4).

    weights (B, S, N), along (B, S) where each step lies between the start, 0, and the end, 1, steps (B,) and
    tokens (B,) valid -> scalar.
    """
    s, n = torch.arange(weights.shape[1], device=weights.device), torch.arange(weights.shape[2], device=weights.device)
    off = along[:, :, None] - n[None, None, :] / tokens[:, None, None]
    penalty = 1 - torch.exp(-(off**2) / (2 * GUIDE_WIDTH**2))
    valid = (s < steps[:, None])[:, :, None] & (n < tokens[:, None])[:, None]
    return (weights * penalty * valid).sum()
