"""Confidence: what agreement is, that a fit finds the curve behind the data, and what `calibrate` keeps."""

import json
import shutil

import numpy as np
import pytest
import torch

from skipmodal.checkpoint import Confidence, add_confidence, export_checkpoint, load_checkpoint
from skipmodal.errors import UserError
from skipmodal.evaluation import calibration
from skipmodal.evaluation.calibration import agreement, calibrate, fit
from skipmodal.translate import Translation
from tests.cli.test_commands import here, model, photo, token_model  # noqa: F401
from tests.evaluation.test_tasks import parts  # noqa: F401

CPU = torch.device("cpu")


def test_agreement_is_of_content_words():
    references = ["Two dogs run on grass.", "A brown dog is running."]
    assert agreement("A brown dog runs on the beach.", references) == 0.5  # brown, dog; not runs, beach
    assert agreement("Dogs run.", references) == 1
    assert agreement("It is on the", references) == agreement("", references) == 0


def test_a_fit_finds_the_curve_behind_the_data():
    rng = np.random.default_rng(0)
    scores = rng.uniform(-1.5, 0, 20000)
    truth = Confidence(slope=3.0, intercept=1.5)
    shares = (rng.random(20000) < [truth(score) for score in scores]).astype(float)
    found = fit(scores, shares)
    assert found.slope == pytest.approx(truth.slope, abs=0.2)
    assert found.intercept == pytest.approx(truth.intercept, abs=0.1)
    assert fit(scores, np.ones(20000))(-0.5) > 0.99  # stays finite


def test_half_of_the_items_checks_what_the_other_half_fitted(parts, monkeypatch):  # noqa: F811
    a, b, translator = parts
    with pytest.raises(UserError, match="at least 40"):
        calibrate(translator, a, limit=39)
    with pytest.raises(UserError, match="fitted on pictures"):
        calibrate(translator, b)
    monkeypatch.setattr(a, "indices", lambda split: np.arange(40))
    # What it is sure of is right, the rest is wrong: scores of 0 and -4.
    turn = iter(range(40))

    def decode(latent, modality):
        results = []
        for _ in range(len(latent.u)):
            good = (i := next(turn)) % 4 < 2
            results.append(Translation("x", False, a.texts(i)[0] if good else "zebra", 0.0 if good else -4.0))
        return results

    monkeypatch.setattr(translator, "decode", decode)
    found = calibrate(translator, a, batch_size=7)
    assert found.items == 20
    assert found.found == [0.0] * 5 + [1.0] * 5
    assert found.error < 0.1
    assert found.confidence(0.0) > 0.9 and found.confidence(-4.0) < 0.1


def test_the_calibration_stays_with_the_checkpoint(token_model, photo, tmp_path, here, monkeypatch):  # noqa: F811
    folder = tmp_path / "model"
    shutil.copytree(token_model, folder)
    status, out, _ = here("img2text", photo, "-m", folder, "--json")
    assert status == 0 and "confidence" not in json.loads(out)
    add_confidence(folder, Confidence(slope=0.0, intercept=0.0))
    export_checkpoint(folder, tmp_path / "small")
    assert load_checkpoint(tmp_path / "small", CPU).confidence == Confidence(slope=0.0, intercept=0.0)
    status, out, _ = here("img2speech", photo, "-m", tmp_path / "small", "--json", "-o", tmp_path / "out.wav")
    assert status == 0 and json.loads(out)["confidence"] == 0.5
    status, out, _ = here("text2speech", "A dog.", "-m", tmp_path / "small", "--json", "-o", tmp_path / "dog.wav")
    assert status == 0 and "confidence" not in json.loads(out)
    status, out, _ = here("speech2text", tmp_path / "dog.wav", "-m", tmp_path / "small", "--json")
    assert status == 0 and "confidence" not in json.loads(out)  # it was fitted on pictures
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("slope: 0.0", "slope: .nan"))
    status, _, err = here("img2text", photo, "-m", folder)
    assert status == 1 and "slope" in err and len(err.splitlines()) == 1


def test_the_command_fits_prints_and_draws(token_model, toy, tmp_path, here, monkeypatch):  # noqa: F811
    pytest.importorskip("matplotlib")
    folder = tmp_path / "model"
    shutil.copytree(token_model, folder)
    found = calibration.Reliability(Confidence(slope=1.0, intercept=0.25), [0.2, 0.6], [0.3, 0.6], 50)
    monkeypatch.setattr(calibration, "calibrate", lambda *args, **options: found)
    status, _, err = here("calibrate", folder, "--data", toy / "image-text", "--plot", tmp_path / "none" / "plot.png")
    assert status == 1 and "--plot" in err and len(err.splitlines()) == 1
    status, out, _ = here("calibrate", folder, "--data", toy / "image-text", "--plot", tmp_path / "plot.png")
    assert status == 0 and "calibration error 0.050" in out.decode()
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert load_checkpoint(folder, CPU).confidence == found.confidence
