"""`skipmodal eval --plots`: which pictures there are, of what, and when there are none."""

import json
from collections import Counter

import numpy as np
import pytest

from skipmodal import text
from skipmodal.data.prepared import PreparedDataset
from skipmodal.evaluation import plots
from tests.cli.test_commands import here, untrained  # noqa: F401
from tests.evaluation.test_curves import log
from tests.evaluation.test_tasks import parts  # noqa: F401

PNG = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
def models(toy, tmp_path_factory):
    """A vector model and a token model in runs of their own."""
    audio, folder = PreparedDataset(toy / "text-speech").meta.audio, tmp_path_factory.mktemp("runs")
    return [untrained(folder / kind / "best", kind, audio=audio).parent for kind in ("vector", "tokens")]


@pytest.fixture
def drawn(monkeypatch):
    """What the drawing functions were given."""
    calls = []
    for name in ("draw_sound", "draw_words"):
        real = getattr(plots, name)
        monkeypatch.setattr(
            plots, name, lambda *args, real=real, **options: calls.append((args, options)) or real(*args, **options)
        )
    return calls


@pytest.mark.parametrize("task", ["img2text", "img2speech", "speech2text", "text2speech"])
def test_each_task_shows_its_first_items(parts, drawn, tmp_path, task):  # noqa: F811
    a, b, translator = parts
    dataset = a if task.startswith("img") else b
    pictures = plots.make_plots(translator, dataset, task, 2, tmp_path)
    assert [picture.name for picture in pictures] == [f"{task}-001.png", f"{task}-002.png"]
    assert all(picture.png.startswith(PNG) for picture in pictures)
    first, second = dataset.indices("test")[:2]
    assert pictures[1].caption.startswith(dataset.item(second)["id"])
    (args, options) = drawn[0]
    if task == "img2text":
        picture, sentence, attention = args
        np.testing.assert_array_equal(picture, dataset.image(first))
        assert attention.shape == (min(len(sentence) + 1, 20), 1)  # a picture of 16 pixels is one token here
        assert attention.sum(1) == pytest.approx(1, abs=1e-5)
        return
    shown, audio = args
    attention, sentence = options["attention"], options["sentence"]
    assert audio == translator.audio
    if task == "speech2text":
        assert attention.sum(0) == pytest.approx(1, abs=1e-5)  # over the recording, for each character
        assert abs(len(attention) * options["frames_a_step"] - len(dataset.mel(first))) <= 4
        return
    assert attention[:-1].sum(1) == pytest.approx(1, abs=1e-5)  # over the sentence, at each decoder step but the last
    assert options["stop"] is None  # its length follows from durations
    assert attention.shape[1] == len(sentence) + 1  # and its end
    assert len(attention) == -(-len(shown["mel of the output"]) // options["frames_a_step"])
    if task == "text2speech":
        assert sentence == text.normalise(dataset.texts(first)[0])
        np.testing.assert_array_equal(shown["target mel"], dataset.mel(first))
    else:
        assert options["picture"] is not None and "target mel" not in shown


def test_piecewise_shows_the_speech_of_the_second_model(parts, drawn, tmp_path, monkeypatch):  # noqa: F811
    a, _, translator = parts
    monkeypatch.setattr(translator, "decode", lambda latent, target: [plots_result("one dog")])
    plots.make_plots(translator, a, "img2speech", 1, tmp_path, then=translator)
    assert drawn[0][1]["sentence"] == "one dog"


def plots_result(sentence):
    from skipmodal.translate import Translation

    return Translation(sentence, False, sentence)


def test_the_command_puts_them_into_the_report(here, models, toy, tmp_path):  # noqa: F811
    vector, tokens = models
    log(tokens, [1, 2], 3.0)
    out = tmp_path / "report"
    command = ("eval", tokens, "--task", "text2speech", "--data", toy / "text-speech", "--out", out, "--beam", 1)
    status, _, err = here(*command, "--transcriber", "command:true", "--plots", 2, "--limit", 3)
    assert status == 0, err
    names = {"text2speech-001.png", "text2speech-002.png", "curves.png"}
    assert {path.name for path in (out / "plots").iterdir()} == names
    assert all(path.read_bytes().startswith(PNG) for path in (out / "plots").iterdir())
    assert (out / "report.html").read_text().count("data:image/png;base64,") == 3
    assert here(*command, "--transcriber", "command:true", "--limit", 3)[0] == 0  # unasked, none
    assert "<img" not in (out / "report.html").read_text()
    status, _, err = here("eval", vector, "--task", "text2speech", "--data", toy / "text-speech", "--out", out,
                          "--transcriber", "command:true", "--plots", 1, "--limit", 2)  # fmt: skip
    assert status == 0, err  # one vector: speech without an alignment


def test_the_command_asks_whether_the_adversary_works(here, models, toy, tmp_path):  # noqa: F811
    command = ("eval", models[1], "--task", "embedding", "--data", toy / "image-text", "--split", "train")
    out = tmp_path / "report"
    status, stdout, err = here(*command, "--against", toy / "text-speech", "--limit", 8, "--plots", 8, "--out", out)
    assert status == 0, err
    assert b"modality from u" in stdout
    assert (out / "plots" / "embedding.png").read_bytes().startswith(PNG)
    figures = json.loads((out / "report.json").read_text())["figures"]
    assert figures["chance"] == pytest.approx(100 / 3)
    assert here(*command, "--limit", 8)[0] == 0


def test_when_there_are_no_pictures_one_line_says_why(here, models, toy, tmp_path, monkeypatch):  # noqa: F811
    vector, tokens = models
    out = ("--out", tmp_path / "report")
    monkeypatch.setattr(plots, "make_plots", None)
    for model, task, kind, options, message in (
        (tokens, "img2text", "image-text", (), "give --out"),
        (tokens, "retrieval", "image-text", out, "retrieval has no pictures"),
        (vector, "img2text", "image-text", out, "the text decoder of this checkpoint has none"),
    ):
        status, _, err = here("eval", model, "--task", task, "--data", toy / kind, "--plots", 1, *options)
        assert status == 1
        assert message in err and Counter(err)["\n"] == 1
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, _, err = here("eval", tokens, "--task", "img2text", "--data", toy / "image-text", "--plots", 1, *out)
    assert status == 1
    assert "pip install matplotlib" in err and Counter(err)["\n"] == 1
