"""Every task that `skipmodal eval` and `skipmodal sweep` measure, behind one call."""

from pathlib import Path
from typing import Any

from skipmodal.checkpoint import Checkpoint
from skipmodal.data.prepared import PreparedDataset
from skipmodal.errors import UserError, require
from skipmodal.evaluation import embedding, tasks, toy
from skipmodal.evaluation.recall import evaluate_retrieval
from skipmodal.evaluation.tasks import Report
from skipmodal.evaluation.vocabulary import vocabulary_report
from skipmodal.metrics.transcribe import Transcriber
from skipmodal.translate import Translator

PAIRED = ("vocabulary", "retrieval", "embedding", "toy")  # the tasks that take a second dataset
_CAPTIONS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D", "METEOR", "SPICE", "vocabulary")
_RATES, _TEXT, _SPEECH = ("WER", "CER"), ("stopped", "empty", "repeats"), ("silent", "seconds")
FIGURES = {  # what a task may measure, by the names in its report; some need Java, or are of some models alone
    "img2speech": (*_CAPTIONS, *_RATES, *_TEXT, *_SPEECH),
    "img2text": (*_CAPTIONS, *_TEXT),
    "speech2text": (*_RATES, *_TEXT),
    "text2speech": (*_RATES, *_TEXT, *_SPEECH),
    "embedding": ("modality from z", "modality from u", "modality from z, by C", "chance"),
    "toy": tuple(f"{way} {name}" for way, _ in toy.DIRECTIONS for name in (*toy.ATTRIBUTES, "whole")),
}


def check_packages(task: str) -> None:
    """Raises UserError where a package is missing that a task needs."""
    if task == "embedding":
        require("eval --task embedding", sklearn="scikit-learn")
    if task == "vocabulary" or (task in tasks.TASKS and task != "img2text"):
        require("word error rates", jiwer="jiwer")


def measure(
    checkpoint: Checkpoint, translator: Translator, task: str, dataset: PreparedDataset,
    against: PreparedDataset | None = None, *, transcriber: Transcriber | None = None, wavs: Path | None = None,
    photos: Path | None = None, then: Translator | None = None, **options: Any,
) -> Report:  # fmt: skip
    """Runs one task; `against` is for those in PAIRED, the options (`split`, `limit`, `batch_size`, `advance`) for all.

    Raises UserError for data that don't fit the task or the model, or where a package is missing.
    """
    check_packages(task)
    if then is not None and task in ("retrieval", "toy", "embedding"):
        raise UserError(f"{task} takes one model; --then is for img2speech and vocabulary")
    if task == "retrieval":
        return evaluate_retrieval(translator, dataset, against, **options)
    if task == "toy":
        return toy.evaluate_toy(translator, dataset, against, **options)
    if task == "embedding":
        adversary = "adversary" in checkpoint.recipe.loss.weights()
        return embedding.evaluate_embedding(translator, dataset, against, adversary=adversary, **options)
    measured = "img2speech" if task == "vocabulary" else task
    report = tasks.evaluate(
        translator, dataset, measured, transcriber=transcriber, wavs=wavs, photos=photos, then=then, **options
    )
    return vocabulary_report(report, dataset, against) if task == "vocabulary" else report
