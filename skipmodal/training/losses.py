"""The losses of the paper, (1) and (3) to (7), and ours: each a mean over valid positions only, of the whole batch.

Where several processes share a batch, a mean's count is that of all of them, so that the average of their gradients is
the gradient of one process that has it all.
"""

from collections.abc import Callable, Collection

import torch
import torch.nn.functional as F
from torch import Tensor

from skipmodal.data.batches import Batch
from skipmodal.models.alignment import Timing, forward_sum, guided_attention
from skipmodal.models.base import Outputs
from skipmodal.models.decoders.letters import letter_loss
from skipmodal.models.decoders.speech import stop_loss
from skipmodal.models.decoders.timed import MAX_LOG_DURATION
from skipmodal.models.latent import Latent
from skipmodal.models.layers import gather_over_processes, length_mask, mean, ratio
from skipmodal.text import PAD

TEMPERATURE = 0.07  # of the cosines in the contrastive loss
TEXT_PULL = 0.15  # part of the gradient of `distance` that texts are given


def compute_losses(outputs: Outputs, batch: Batch, linear: Tensor | None, wanted: Collection[str]) -> dict[str, Tensor]:
    """Those of the wanted losses that the batch allows, unweighted, by their names in the recipe; and C's own loss,
    `classifier`, where the adversary's is wanted.

    `linear` (Nb, T, n_linear) are the post-net's targets; needed where the batch has speech.
    """
    losses = dict(outputs.own)
    for name, compute in _LOSSES.items():  # in one order, as several processes have to sum over each other
        loss = compute(outputs, batch, linear) if name in wanted else None
        if loss is not None:
            losses[name] = loss
    if "adversary" in wanted and outputs.game is not None:
        losses["classifier"] = outputs.game[0]
    return losses


def total_loss(losses: dict[str, Tensor], weights: dict[str, float], ramp: float = 1.0) -> Tensor:
    """Equation (7) with a weight for each term. C's own loss has none; `ramp` is the part of alpha that is reached."""
    terms = [weights.get(name, 1.0) * (ramp if name == "adversary" else 1.0) * loss for name, loss in losses.items()]
    return torch.stack(terms).sum() if terms else torch.zeros(())


def _image(outputs: Outputs, batch: Batch, linear: Tensor | None) -> Tensor | None:
    return None if outputs.pictures is None else mean((outputs.pictures - batch.images).abs())


def _mel(outputs: Outputs, batch: Batch, linear: Tensor | None) -> Tensor | None:
    if outputs.spoken is None:
        return None
    return mean((outputs.spoken.mel - batch.mel).abs()[length_mask(batch.mel_lengths, batch.mel.shape[1])])


def _linear(outputs: Outputs, batch: Batch, linear: Tensor | None) -> Tensor | None:
    if outputs.spoken is None:
        return None
    assert linear is not None
    lengths = batch.mel_lengths if batch.linear_part is None else batch.linear_part[1]
    return mean((outputs.spoken.linear - linear).abs()[length_mask(lengths, linear.shape[1])])


def _flow(outputs: Outputs, batch: Batch, linear: Tensor | None) -> Tensor | None:
    if outputs.spoken is None or (each := outputs.spoken.matching) is None:
        return None
    return mean((each.velocity - each.target).square()[length_mask(each.lengths, each.target.shape[1])])


def _stop(outputs: Outputs, batch: Batch, linear: Tensor | None) -> Tensor | None:
    if outputs.spoken is None or outputs.spoken.stop is None:
        return None
    return stop_loss(outputs.spoken.stop, outputs.spoken.steps)


def _text(name: str) -> Callable[[Outputs, Batch, Tensor | None], Tensor | None]:
    def loss(outputs: Outputs, batch: Batch, linear: Tensor | None) -> Tensor | None:
        """Cross-entropy a character (equation 6), also where words are one token."""
        written = outputs.written.get(name)
        if not written:
            return None
        spent = torch.cat([part.spent() for part in written]).sum()
        return ratio(spent, torch.stack([part.spans.sum() for part in written]).sum())

    return loss


def _timing(outputs: Outputs) -> Timing | None:
    return None if outputs.spoken is None else outputs.spoken.timing


def _duration(outputs: Outputs, batch: Batch, linear: Tensor | None) -> Tensor | None:
    """Poisson's deviance, whose best answer is the mean, so that all durations of a sentence sum to its length."""
    if (timing := _timing(outputs)) is None:
        return None
    mask = timing.durations > 0  # which padding never has
    predicted, frames = timing.predicted[mask].clamp(max=MAX_LOG_DURATION), timing.durations[mask].float()
    return mean(predicted.exp() - frames + frames * (frames.log() - predicted))


def _prosody(outputs: Outputs, batch: Batch, linear: Tensor | None) -> Tensor | None:
    if (timing := _timing(outputs)) is None:
        return None
    predicted, heard = (part[timing.durations > 0] for part in timing.prosody)
    return mean((predicted - heard).square().sum(1))


def _alignment(outputs: Outputs, batch: Batch, linear: Tensor | None) -> Tensor | None:
    if (timing := _timing(outputs)) is None:
        return None
    return ratio(forward_sum(timing.scores, timing.lengths, batch.mel_lengths), batch.mel_lengths.sum())


def _guided_attention(outputs: Outputs, batch: Batch, linear: Tensor | None) -> Tensor | None:
    written, speech = outputs.written.get("text_from_speech"), outputs.speech
    if not written or speech is None or written[0].attention is None:
        return None
    spans = written[0].spans
    along = (spans.cumsum(1) - spans) / spans.sum(1, keepdim=True)
    steps = (written[0].target != PAD).sum(1)
    return ratio(guided_attention(written[0].attention.mean(1), along, steps, speech.lengths), steps.sum())


def _contrastive(outputs: Outputs, batch: Batch, linear: Tensor | None) -> Tensor | None:
    """Which text belongs to which picture or recording, and the reverse (van den Oord et al., 2018)."""
    losses = []
    for pair in outputs.pairs:
        a_rows, b_rows = (F.normalize(gather_over_processes(each.mean), dim=1) for each in pair)
        if len(a_rows) == 1:  # there is no other to tell it from
            continue
        similarity = a_rows @ b_rows.T / TEMPERATURE
        target = torch.arange(len(similarity), device=similarity.device)
        losses.append((F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2)
    return torch.stack(losses).sum() if losses else None


def _distance(outputs: Outputs, batch: Batch, linear: Tensor | None) -> Tensor | None:
    """Squared distance between u of the two modalities of an item.

    Mostly the other modality moves: texts, pulled as strongly, forget what pictures or recordings don't show yet.
    """

    def squares(other: Latent, text: Latent) -> Tensor:
        fixed = text.mean.detach()
        target = fixed + TEXT_PULL * (text.mean - fixed)
        return mean((other.mean - target).square().sum(1))

    return torch.stack([squares(*pair) for pair in outputs.pairs]).sum() if outputs.pairs else None


def _letters(outputs: Outputs, batch: Batch, linear: Tensor | None) -> Tensor | None:
    """A character, as the text's."""
    if not outputs.letters:
        return None
    spent = torch.stack([letter_loss(part) for part in outputs.letters]).sum()
    return ratio(spent, torch.stack([part.spans.sum() for part in outputs.letters]).sum())


def _round_trip(outputs: Outputs, batch: Batch, linear: Tensor | None) -> Tensor | None:
    if (each := outputs.imitation) is None:
        return None
    sound = (each.mel - each.target).abs()[length_mask(each.lengths, each.mel.shape[1])]
    rhythm = (each.durations - each.target_durations).abs()[length_mask(each.characters, each.durations.shape[1])]
    return mean(sound) + mean(rhythm)


def _adversary(outputs: Outputs, batch: Batch, linear: Tensor | None) -> Tensor | None:
    return None if outputs.game is None else outputs.game[1]


_LOSSES: dict[str, Callable[[Outputs, Batch, Tensor | None], Tensor | None]] = {
    "image": _image, "mel": _mel, "linear": _linear, "flow": _flow, "stop": _stop, "duration": _duration,
    "prosody": _prosody, "alignment": _alignment,
    "text_from_image": _text("text_from_image"), "text_from_speech": _text("text_from_speech"),
    "text_from_text": _text("text_from_text"), "back_translation": _text("back_translation"),
    "guided_attention": _guided_attention, "contrastive": _contrastive,
    "distance": _distance, "letters": _letters, "round_trip": _round_trip, "adversary": _adversary,
}  # fmt: skip
