"""The losses (3) to (7) of the paper, each a mean over valid positions only."""

import torch
import torch.nn.functional as F
from torch import Tensor

from skipmodal.config import LossConfig
from skipmodal.data.batches import Batch
from skipmodal.models.attention import guided_attention
from skipmodal.models.durations import Timing, forward_sum
from skipmodal.models.layers import length_mask
from skipmodal.models.skipmodal import Outputs, Written
from skipmodal.text import PAD

TEMPERATURE = 0.07  # of the cosines in the contrastive loss


def compute_losses(outputs: Outputs, batch: Batch, linear: Tensor | None) -> dict[str, Tensor]:
    """Every loss the batch allows, unweighted, keyed by its name in the recipe.

    `linear` (Nb, T, n_linear) are the post-net's targets; needed where the batch has speech.
    """
    n_a = len(batch.images)
    losses = {}
    if outputs.images is not None:
        losses["image"] = F.l1_loss(outputs.images, batch.images)
    if outputs.text_from_image is not None:
        losses["text_from_image"] = _text(outputs.text_from_image, batch.lengths[:n_a])
    if outputs.text_from_speech is not None and outputs.speech is not None:
        assert linear is not None
        mask = length_mask(batch.mel_lengths, batch.mel.shape[1])
        losses["mel"] = (outputs.speech.mel - batch.mel).abs()[mask].mean()
        lengths = batch.mel_lengths if batch.linear_part is None else batch.linear_part[1]
        losses["linear"] = (outputs.speech.linear - linear).abs()[length_mask(lengths, linear.shape[1])].mean()
        if outputs.speech.stop is not None:
            losses["stop"] = _stop(outputs.speech.stop, outputs.speech.steps)
        if outputs.speech.timing is not None:
            losses["duration"], losses["alignment"] = _timing(outputs.speech.timing, batch.mel_lengths)
        losses["text_from_speech"] = _text(outputs.text_from_speech, batch.lengths[n_a:])
    if outputs.text_from_text is not None:
        losses["text_from_text"] = _text(outputs.text_from_text, batch.lengths[-len(outputs.text_from_text.target) :])
    if outputs.listening is not None:
        losses["listening"] = guided_attention(*outputs.listening)
    pairs = [pair for pair in outputs.pairs if len(pair[0]) > 1]
    if pairs:
        losses["contrastive"] = torch.stack([_contrastive(*pair) for pair in pairs]).sum()
    losses["adversary"] = _adversary(outputs)
    return losses


def total_loss(losses: dict[str, Tensor], weights: LossConfig) -> Tensor:
    """Equation (7) with a weight for each term; terms of weight zero are left out."""
    terms = [getattr(weights, name) * loss for name, loss in losses.items() if getattr(weights, name) > 0]
    return torch.stack(terms).sum()


def _text(written: Written, characters: Tensor) -> Tensor:
    """Cross-entropy a character (equation 6), also where words are written whole; characters (B,)."""
    logits, target = written
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD, reduction="sum") / characters.sum()


def _stop(logits: Tensor, steps: Tensor) -> Tensor:
    """Binary cross-entropy a step; the last valid step is the one that stops."""
    target = F.one_hot(steps - 1, logits.shape[1]).to(logits.dtype)
    mask = length_mask(steps, logits.shape[1])
    # Not in the paper, as the stop output itself: one stop against some fifty others would be ignored.
    return F.binary_cross_entropy_with_logits(logits[mask], target[mask], pos_weight=logits.new_tensor(5.0))


def _timing(timing: Timing, mel_lengths: Tensor) -> tuple[Tensor, Tensor]:
    """How far off durations are, as a mean ratio's logarithm; and what the aligner learns from."""
    mask = timing.durations > 0  # which padding never has
    off = timing.predicted[mask] - timing.durations[mask].log()
    return off.abs().mean(), forward_sum(timing.scores, timing.lengths, mel_lengths)


def _contrastive(a: Tensor, b: Tensor) -> Tensor:
    """Which b belongs to which a, and the reverse (van den Oord et al., 2018): a and b (N, d_k), row by row a pair."""
    similarity = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / TEMPERATURE
    target = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2


def _adversary(outputs: Outputs) -> Tensor:
    """L_C of equation (1): one mean for image, text of A, text of B and speech; T's part comes by gradient reversal."""
    terms = []
    for group, modality in zip(outputs.modality_logits.split(outputs.modality_counts), (0, 1, 1, 2), strict=True):
        if len(group):
            terms.append(F.cross_entropy(group, torch.full((len(group),), modality, device=group.device)))
    return torch.stack(terms).sum()
