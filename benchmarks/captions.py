"""Captions that `base` learns from in a second of one core: five of a photo in one pass, and a pass for each.

    python benchmarks/captions.py IMAGE_TEXT TEXT_SPEECH

Both are prepared datasets, the photos with features. Only the loss of captions is trained, from random weights; both
ways have as many captions a step.
"""

import argparse
import time
from itertools import islice
from pathlib import Path

import torch

from skipmodal.checkpoint import BUNDLED, load_tokenizer
from skipmodal.data.batches import TrainingBatches
from skipmodal.data.prepared import PreparedDataset
from skipmodal.recipe import load_recipe
from skipmodal.systems import build
from skipmodal.training.losses import compute_losses

PHOTOS, CAPTIONS, STEPS = 24, 5, 6
WAYS = {"five captions a pass": CAPTIONS, "a pass for each caption": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image_text", type=Path)
    parser.add_argument("text_speech", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    a, b = PreparedDataset(arguments.image_text, features=True), PreparedDataset(arguments.text_speech)
    rates = {}
    for name, captions in WAYS.items():
        sizes = [f"data.captions={captions}", f"data.batch_size={PHOTOS * CAPTIONS // captions}"]
        recipe = load_recipe("base", ["data.sampling=image-text", *sizes])
        torch.manual_seed(0)
        model = build(recipe.model, b.meta.audio, a.meta.image, load_tokenizer(BUNDLED, recipe.model)).train()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
        seconds, texts = 0.0, 0
        batches = TrainingBatches(a, b, recipe.data, model.tokenizer, seed=0)
        for step, batch in enumerate(islice(batches, STEPS + 1)):
            start = time.perf_counter()
            loss = compute_losses(model(batch, ["text_from_image"]), batch, None, ["text_from_image"])
            loss["text_from_image"].backward()
            optimizer.step()
            optimizer.zero_grad()
            if step:  # the first one warms up
                seconds, texts = seconds + time.perf_counter() - start, texts + len(batch.owners)
        rates[name] = texts / seconds
        print(f"{name}: {rates[name]:.0f} captions a second", flush=True)
    one, other = rates.values()
    print(f"ratio {one / other:.2f}")


if __name__ == "__main__":
    main()
