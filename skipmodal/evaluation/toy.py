"""What is right of the toy world's four words, in each direction: of combinations that neither dataset has."""

from collections.abc import Callable

import numpy as np

from skipmodal.data.prepared import PreparedDataset
from skipmodal.data.toy import WORDS, transcribe_tones
from skipmodal.errors import UserError
from skipmodal.evaluation.tasks import Report, direction
from skipmodal.items import encode_items
from skipmodal.translate import Translator

ATTRIBUTES = ("size", "colour", "shape", "place")  # the words of a caption, in order
DIRECTIONS = (("img2text", 0), ("img2speech", 0), ("text2speech", 1), ("speech2text", 1))  # and which dataset's items


def evaluate_toy(
    translator: Translator, pictures: PreparedDataset, recordings: PreparedDataset | None, *, split: str = "test",
    limit: int | None = None, batch_size: int = 32, advance: Callable[[int], None] = lambda items: None,
) -> Report:  # fmt: skip
    """Percent of a split's captions of which each word, and the whole sentence, is written or heard.

    Speech is heard exactly: its tones are decoded. Raises UserError for data that don't fit, or of another world.
    """
    if recordings is None:
        raise UserError("toy needs both datasets; give the recordings by --against")
    for dataset, kind in ((pictures, "image-text"), (recordings, "text-speech")):
        if dataset.meta.kind != kind:
            raise UserError(f"{dataset.path}: is {dataset.meta.kind}; --data takes pictures, --against recordings")
        if not len(dataset.indices(split)):
            raise UserError(f"{dataset.path}: the split {split} is empty")
    figures: dict[str, float] = {}
    details = []
    chosen = [each.indices(split)[:limit] for each in (pictures, recordings)]
    for way, number in DIRECTIONS:
        dataset = (pictures, recordings)[number]
        source, target = direction(way)
        hits = np.zeros(len(ATTRIBUTES) + 1)
        for start in range(0, len(chosen[number]), batch_size):
            batch = chosen[number][start : start + batch_size]
            results = translator.decode(encode_items(translator, dataset, batch, source), target)
            for i, result in zip(batch, results, strict=True):
                found = result.value
                if isinstance(found, np.ndarray):
                    found = transcribe_tones(found, translator.audio.sample_rate)
                truth = dataset.texts(i)[0]
                if not set(truth.split()) <= set(WORDS):
                    raise UserError(f"{dataset.path}: is not the toy world (it has the caption {truth[:60]!r})")
                hits += [*(word in found.split() for word in truth.split()), found == truth]
                details.append({"id": dataset.item(i)["id"], "task": way, "references": [truth], "text": found})
            advance(len(batch))
        names = (*ATTRIBUTES, "whole")
        figures |= {f"{way} {name}": float(v) for name, v in zip(names, 100 * hits / len(chosen[number]), strict=True)}
    data = f"{pictures.path.name} and {recordings.path.name}"
    return Report("toy", data, split, sum(map(len, chosen)), figures, details)
