"""What `skipmodal eval` measures: a model's output on a held-out split, scored against the split's texts."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from skipmodal.audio import write_audio
from skipmodal.data.prepared import PreparedDataset
from skipmodal.errors import UserError
from skipmodal.image import write_image
from skipmodal.items import encode_items
from skipmodal.metrics.captions import score_captions, tokenise
from skipmodal.metrics.java import java_scores
from skipmodal.metrics.transcribe import SILENCE, Transcriber
from skipmodal.metrics.wer import error_rates, normalise_transcript
from skipmodal.translate import Translation, Translator

TASKS = {
    "img2speech": "image-text",
    "img2text": "image-text",
    "speech2text": "text-speech",
    "text2speech": "text-speech",
}
Advance = Callable[[int], None]


@dataclass
class Report:
    """Figures of one task, and the items behind them."""

    task: str
    data: str
    split: str
    items: int
    figures: dict[str, float]
    details: list[dict[str, Any]] = field(repr=False, default_factory=list)
    notes: list[str] = field(default_factory=list)  # what could not be measured, and why


def evaluate(
    translator: Translator, dataset: PreparedDataset, task: str, *, split: str = "test", limit: int | None = None,
    transcriber: Transcriber | None = None, batch_size: int = 32, wavs: Path | None = None, photos: Path | None = None,
    then: Translator | None = None, advance: Advance = lambda items: None,
) -> Report:  # fmt: skip
    """Runs one task over a split.

    With `then`, the Piecewise system of table 1: the first model writes a sentence and this one says it.
    `wavs` is a folder for the speech that was made, `photos` for what was described. Raises UserError where the data or
    the transcriber are missing or of the wrong kind.
    """
    if dataset.meta.kind != TASKS[task]:
        raise UserError(f"{dataset.path}: is a {dataset.meta.kind} dataset; {task} is measured on {TASKS[task]}")
    if task.endswith("speech") and transcriber is None:
        raise UserError(f"{task} needs a transcriber to be heard; give --transcriber")
    items = dataset.indices(split)[:limit]
    if len(items) < 2:
        raise UserError(f"{dataset.path}: has fewer than two items in its {split} split")
    source, target = direction(task)
    if then is not None and (target != "speech" or source == "text"):
        raise UserError(f"{task} takes one model; only a picture or a recording is first written, then said by another")
    details: list[dict[str, Any]] = []
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        latent = encode_items(translator, dataset, batch, source)
        results = _speak(translator.decode(latent, "text"), then) if then else translator.decode(latent, target)
        for i, result, heard in zip(batch, results, _heard(results, transcriber, translator), strict=True):
            item = dataset.item(i)
            detail = {"id": item["id"], "references": item["texts"], **_describe(result, heard, translator)}
            name = re.sub(r"[^\w.-]", "_", item["id"])
            if wavs is not None and isinstance(result.value, np.ndarray):
                detail["audio"] = str(wavs / f"{name}.wav")
                write_audio(wavs / f"{name}.wav", result.value, translator.audio.sample_rate)
            if photos is not None and source == "image":
                detail["picture"] = str(photos / f"{name}.jpg")
                write_image(photos / f"{name}.jpg", dataset.image(i))
            details.append(detail)
        advance(len(batch))
    figures, notes = _figures(task, details)
    return Report(task, f"{dataset.path.name} ({dataset.meta.source})", split, len(items), figures, details, notes)


def direction(task: str) -> tuple[str, str]:
    """The modalities of a translation: img2text -> image, text."""
    source, _, target = task.replace("img", "image").partition("2")
    return source, target


def _speak(written: Sequence[Translation], speaker: Translator) -> list[Translation]:
    """What one model wrote, spoken by another."""
    sentences = [speaker.read(result.text or ".", "text") for result in written]
    spoken = speaker.decode(speaker.encode(sentences, "text"), "speech")
    return [replace(s, text=w.text, capped=s.capped or w.capped) for s, w in zip(spoken, written, strict=True)]


def _heard(
    results: Sequence[Translation], transcriber: Transcriber | None, translator: Translator
) -> Iterator[str | None]:
    for result in results:
        if isinstance(result.value, str) or transcriber is None:
            yield None
        else:
            (text,) = transcriber([(result.value, translator.audio.sample_rate)])
            yield text


def _describe(result: Translation, heard: str | None, translator: Translator) -> dict[str, Any]:
    detail: dict[str, Any] = {"text": result.text, "capped": result.capped}
    if isinstance(result.value, np.ndarray):
        detail["heard"] = heard
        detail["seconds"] = round(len(result.value) / translator.audio.sample_rate, 3)
        detail["silent"] = bool(np.abs(result.value).max(initial=0) < SILENCE)
    return detail


def _figures(task: str, details: list[dict[str, Any]]) -> tuple[dict[str, float], list[str]]:
    outputs = [detail["heard"] if task.endswith("speech") else detail["text"] for detail in details]
    figures: dict[str, float] = {}
    notes: list[str] = []
    if task.startswith("img"):
        # A recogniser spells in its own way, so both sides are normalised; what is written is compared as it is.
        spelt: Callable[[str], str] = normalise_transcript if task == "img2speech" else str
        hypotheses = {str(i): spelt(text) for i, text in enumerate(outputs)}
        references = {str(i): [spelt(r) for r in detail["references"]] for i, detail in enumerate(details)}
        scores = score_captions(hypotheses, references)
        figures |= {f"BLEU-{i}": 100 * value for i, value in enumerate(scores.bleu, 1)}
        figures |= {"ROUGE-L": 100 * scores.rouge_l, "CIDEr-D": 100 * scores.cider}
        more, notes = java_scores(hypotheses, references)
        figures |= {name: 100 * value for name, value in more.items()}
        figures["vocabulary"] = len({word for text in outputs for word in tokenise(text)})
    if not task.startswith("img") or (task == "img2speech" and details[0]["text"] is not None):
        spoken = [d["text"] if task == "img2speech" else d["references"][0] for d in details]
        rates = error_rates(spoken, outputs)
        figures |= {"WER": 100 * rates.wer, "CER": 100 * rates.cer} if rates else {}
    figures["stopped"] = 100 * (1 - sum(d["capped"] for d in details) / len(details))
    figures["empty"] = sum(not text.strip() for text in outputs)
    figures["repeats"] = sum(repeats(text) for text in outputs)
    if task.endswith("speech"):
        figures["silent"] = sum(d["silent"] for d in details)
        figures["seconds"] = float(np.mean([d["seconds"] for d in details]))
    return figures, notes


def repeats(text: str, times: int = 3) -> bool:
    """Whether some phrase is said three times in a row."""
    words = tokenise(text)
    return any(
        words[i : i + n] * times == words[i : i + n * times]
        for n in range(1, len(words) // times + 1)
        for i in range(len(words) - n * times + 1)
    )
