"""What a comparator's test asks: that it learns a batch by heart and gives it back, by its own decoding."""

import torch

from skipmodal import text
from skipmodal.image import ImageConfig
from skipmodal.recipe import parse_recipe
from skipmodal.systems import build
from skipmodal.tokenizer import Tokenizer
from skipmodal.training.losses import compute_losses, total_loss
from tests.models.tiny import AUDIO, tiny_batch


def learn(kind, steps, batch=None, lr=0.01, words=(), image=None, loss=None, **settings):
    """A tiny system after `steps` on one batch, its first and its last loss."""
    torch.manual_seed(0)
    recipe = parse_recipe({"model": {"kind": kind, **settings}, "loss": loss or {}}, kind)
    system = build(recipe.model, AUDIO, image or ImageConfig(size=16), Tokenizer(words)).train()
    batch = tiny_batch() if batch is None else batch
    weights = recipe.loss.weights()
    optimizer = torch.optim.Adam(system.parameters(), lr)
    losses = []
    for _ in range(steps):
        linear = batch.linear(AUDIO) if len(batch.mel) else None
        loss = total_loss(compute_losses(system(batch, weights), batch, linear, weights), weights)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(system.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return system.eval(), losses[0], losses[-1]


def batch_saying(*texts):
    """A batch whose recordings say these: half as many frames as they have must do for the letters."""
    batch = tiny_batch()
    batch.ids[2:, :] = 0
    for row, letters in enumerate(texts, 2):
        ids = text.encode(letters)
        batch.ids[row, : len(ids)], batch.lengths[row] = torch.tensor(ids), len(ids)
    return batch
