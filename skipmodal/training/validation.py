"""Validation while training: teacher-forced losses over held-out items."""

import torch

from skipmodal.config import LossConfig, Recipe
from skipmodal.data.batches import validation_batches
from skipmodal.data.prepared import PreparedDataset
from skipmodal.models import Model
from skipmodal.training.losses import compute_losses

SPEECH_LOSSES = ("mel", "linear", "stop", "duration", "alignment", "text_from_speech", "listening")


@torch.no_grad()
def validate(
    model: Model, recipe: Recipe, a: PreparedDataset, b: PreparedDataset, device: torch.device
) -> dict[str, float]:
    """Mean teacher-forced losses over the first `eval_items` validation items of each dataset; leaves eval mode on.

    `loss` is the weighted sum by which the best checkpoint is chosen.
    """
    assert b.meta.audio is not None
    model.eval()
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    half = 2 * recipe.data.batch_size
    for batch in validation_batches(a, b, recipe.train.eval_items, half, recipe.data.sampling):
        batch = batch.to(device)
        linear = batch.linear(b.meta.audio) if len(batch.mel) else None
        outputs = model(batch, **wanted_outputs(recipe.loss))
        losses = compute_losses(outputs, batch, linear)
        for name, value in losses.items():
            weight = len(batch.mel) if name in SPEECH_LOSSES else len(batch.images)
            weight = len(batch.ids) if name == "adversary" else weight
            weight = sum(len(pair[0]) for pair in outputs.pairs) if name == "contrastive" else weight
            weight = len(outputs.text_from_text.target) if name == "text_from_text" else weight
            sums[name] = sums.get(name, 0.0) + value.item() * weight
            counts[name] = counts.get(name, 0) + weight
    means = {name: sums[name] / counts[name] for name in sums}
    # A good adversary is no aim in itself, nor is a straight alignment: what is decoded chooses the best checkpoint.
    aids = ("adversary", "contrastive", "listening", "alignment")
    chosen = {name: value for name, value in means.items() if name not in aids}
    return {"loss": sum(getattr(recipe.loss, name) * value for name, value in chosen.items()), **means}


def wanted_outputs(config: LossConfig) -> dict[str, bool]:
    """Which parts of the model's pass that can be left out have a loss."""
    return {"text_from_text": config.text_from_text > 0, "image_from_text": config.image > 0}
