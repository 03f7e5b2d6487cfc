"""Validation while training: teacher-forced losses over held-out items."""

import torch

from skipmodal.config import Recipe
from skipmodal.data.batches import validation_batches
from skipmodal.data.prepared import PreparedDataset
from skipmodal.models.base import System
from skipmodal.training.losses import compute_losses


@torch.no_grad()
def validate(
    model: System, recipe: Recipe, a: PreparedDataset, b: PreparedDataset, device: torch.device
) -> dict[str, float]:
    """Mean teacher-forced losses over the first `eval_items` validation items of each dataset; leaves eval mode on.

    `loss` is the weighted sum by which the best checkpoint is chosen: of the losses that select, or of all if none do.
    """
    assert b.meta.audio is not None
    model.eval()
    terms = {term.name: term for term in recipe.loss.terms()}
    weights = recipe.loss.weights()
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    half = 2 * recipe.data.batch_size
    for batch in validation_batches(a, b, model.tokenizer, recipe.train.eval_items, half, recipe.data.sampling):
        batch = batch.to(device)
        linear = batch.linear(b.meta.audio) if len(batch.mel) and "linear" in weights else None
        items = {"image-text": len(batch.images), "text-speech": len(batch.mel), "both": len(batch.ids)}
        losses = compute_losses(model(batch, weights), batch, linear, weights)
        for name, value in losses.items():
            count = items[terms[name].data if name in terms else "both"]
            sums[name] = sums.get(name, 0.0) + value.item() * count
            counts[name] = counts.get(name, 0) + count
    means = {name: sums[name] / counts[name] for name in sums}
    # A good adversary is no aim in itself, nor is a straight alignment: what is decoded chooses the best checkpoint.
    known = [name for name in means if name in terms]
    chosen = [name for name in known if terms[name].selects] or known
    return {"loss": sum(weights[name] * means[name] for name in chosen), **means}
