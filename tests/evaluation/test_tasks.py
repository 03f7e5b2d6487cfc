"""`skipmodal eval` on the toy world, whose tones are heard exactly."""

import copy
import json

import pytest
import torch

from skipmodal.checkpoint import Checkpoint
from skipmodal.data.prepared import PreparedDataset
from skipmodal.data.toy import transcribe_tones
from skipmodal.errors import UserError
from skipmodal.evaluation.measure import measure
from skipmodal.evaluation.report import write_report
from skipmodal.evaluation.tasks import evaluate, repeats
from skipmodal.evaluation.toy import evaluate_toy
from skipmodal.metrics.wer import error_rates
from skipmodal.models.system import SkipModal
from skipmodal.recipe import parse_recipe
from skipmodal.tokenizer import Tokenizer
from skipmodal.translate import Translation, Translator
from tests.conftest import TINY_TOKENS


@pytest.fixture
def parts(toy):
    a, b = PreparedDataset(toy / "image-text"), PreparedDataset(toy / "text-speech")
    recipe = parse_recipe({"model": TINY_TOKENS}, "tiny")
    torch.manual_seed(0)
    model = SkipModal(recipe.model, b.meta.audio, a.meta.image, Tokenizer()).eval()
    checkpoint = Checkpoint(model, recipe, b.meta.audio, a.meta.image)
    return a, b, Translator(checkpoint, torch.device("cpu"), max_seconds=1, max_text=20, beam=1)


def tones(recordings):
    for wav, rate in recordings:
        yield transcribe_tones(wav, rate)


@pytest.mark.parametrize("task", ["img2text", "img2speech", "speech2text", "text2speech"])
def test_every_task_reports(parts, task, tmp_path):
    a, b, translator = parts
    dataset = a if task.startswith("img") else b
    report = evaluate(translator, dataset, task, limit=3, transcriber=tones, batch_size=2, wavs=tmp_path)
    assert report.items == len(report.details) == 3
    assert {"stopped", "empty", "repeats"} <= report.figures.keys()
    assert ("CIDEr-D" in report.figures) == task.startswith("img")
    assert ("WER" in report.figures) == (task != "img2text")
    (tmp_path / "out").mkdir()
    write_report(report, tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "report.json").read_text())
    assert saved["figures"] == report.figures
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert "measured on 3 items" in markdown
    assert len((tmp_path / "out" / "items.jsonl").read_text().splitlines()) == 3
    assert len(list(tmp_path.glob("*.wav"))) == 3 * task.endswith("speech")


def test_piecewise_has_another_model_say_what_the_first_wrote(parts, monkeypatch):
    a, b, writer = parts
    asked = []
    speaker = copy.copy(writer)
    monkeypatch.setattr(
        speaker, "read", lambda text, kind: asked.append((text, kind)) or Translator.read(writer, text, kind)
    )
    report = evaluate(writer, a, "img2speech", limit=3, transcriber=tones, then=speaker)
    alone = evaluate(writer, a, "img2text", limit=3)
    assert [detail["text"] for detail in report.details] == [detail["text"] for detail in alone.details]
    assert asked == [(detail["text"] or ".", "text") for detail in alone.details]
    with pytest.raises(UserError, match="takes one model"):
        evaluate(writer, b, "text2speech", transcriber=tones, then=speaker)


def test_figures_are_of_what_was_said(parts, monkeypatch):
    a, _, translator = parts
    items = a.indices("test")[:4]
    said = [a.texts(i)[0] for i in items[:3]] + ["big big big dog"]
    monkeypatch.setattr(translator, "decode", lambda latent, target: [Translation(t, t == said[0], t) for t in said])
    report = evaluate(translator, a, "img2text", limit=4)
    assert report.figures["stopped"] == 75
    assert report.figures["repeats"] == 1
    assert 70 < report.figures["BLEU-1"] < 100
    said[3] = ""
    assert evaluate(translator, a, "img2text", limit=4).figures["empty"] == 1


def test_what_does_not_fit_is_refused(parts):
    a, b, translator = parts
    with pytest.raises(UserError, match="is a text-speech dataset; img2text is measured on image-text"):
        evaluate(translator, b, "img2text")
    with pytest.raises(UserError, match="--transcriber"):
        evaluate(translator, a, "img2speech")
    checkpoint = Checkpoint(
        translator.model, parse_recipe({"model": TINY_TOKENS}, "tiny"), translator.audio, translator.image
    )
    for task in ("retrieval", "toy", "embedding"):
        with pytest.raises(UserError, match=f"{task} takes one model"):
            measure(checkpoint, translator, task, a, b, then=translator)
    with pytest.raises(UserError, match="is text-speech; --data takes pictures"):
        evaluate_toy(translator, b, a)


def test_phrases_said_three_times_in_a_row():
    assert repeats("a man and a shirt and a shirt and a shirt")
    assert repeats("no no no")
    assert not repeats("a man and a shirt and a shirt")
    assert not repeats("a big dog and a big cat and a small cow")


def test_error_rates_of_tones(parts):
    _, b, _ = parts
    items = b.indices("test")[:3]
    heard = list(tones((b.wav(i).astype("float32") / 32768, 8000) for i in items))
    assert error_rates([b.texts(i)[0] for i in items], heard).wer == 0
