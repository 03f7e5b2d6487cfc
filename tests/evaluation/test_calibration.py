"""Confidence: what precision is, that a fit finds the curve behind the data, and what `calibrate` keeps."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save, save_file

from skipmodal.checkpoint import Confidence, add_confidence, export_checkpoint, load_checkpoint
from skipmodal.confidence import distances
from skipmodal.errors import UserError
from skipmodal.evaluation import calibration
from skipmodal.evaluation.calibration import alter, calibrate, fit, precision
from skipmodal.translate import Translation, Translator
from tests.cli.test_commands import here, model, photo, token_model  # noqa: F401
from tests.evaluation.test_tasks import parts  # noqa: F401

CPU = torch.device("cpu")


def test_agreement_is_of_content_words():
    references = ["Two dogs run on grass.", "A brown dog is running."]
    assert precision("A brown dog runs on the beach.", references) == 0.5  # brown, dog; not runs, beach
    assert precision("Dogs run.", references) == 1
    assert precision("It is on the", references) == precision("", references) == 0


def test_a_fit_finds_the_curve_behind_the_data():
    rng = np.random.default_rng(0)
    scores = rng.uniform(-1.5, 0, 20000)
    far = rng.uniform(0, 1, 20000)
    truth = Confidence(slope=3.0, distance=-2.0, intercept=1.5, far=1.0)
    shares = (rng.random(20000) < [truth(*each) for each in zip(scores, far, strict=True)]).astype(float)
    found = fit(np.stack([scores, far], 1), shares)
    assert found == pytest.approx([truth.slope, truth.distance, truth.intercept], abs=0.2)
    assert np.isfinite(fit(np.stack([scores, far], 1), np.ones(20000))).all()


def test_an_altered_picture_is_another(parts):  # noqa: F811
    picture = parts[0].image(0)
    seen = [np.asarray(alter(picture, number)) for number in range(7)]
    assert len({array.tobytes() for array in (*seen, picture)}) == 8
    assert np.array_equal(seen[3], np.asarray(alter(picture, 10)))


def test_distances_are_those_of_the_nearest():
    prototypes = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    far = distances(torch.tensor([[5.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]), prototypes)
    torch.testing.assert_close(far, torch.tensor([0.0, 0.0, 1 + 2**-0.5]))


def test_half_of_the_items_checks_what_the_other_half_fitted(parts, monkeypatch):  # noqa: F811
    a, b, translator = parts
    with pytest.raises(UserError, match="at least 40"):
        calibrate(translator, a, limit=39)
    with pytest.raises(UserError, match="fitted on pictures"):
        calibrate(translator, b)
    monkeypatch.setattr(a, "indices", lambda split: np.arange(0 if split == "train" else 40))
    with pytest.raises(UserError, match="no train split"):
        calibrate(translator, a)
    monkeypatch.setattr(a, "indices", lambda split: np.arange(40))
    # What it is sure of is right, the rest is wrong: scores of 0 and -4. Of altered pictures nothing is right.
    calls = []

    def decode(latent, modality):
        first, altered = sum(calls) // 2, len(calls) % 2
        calls.append(len(latent.u))
        results = []
        for i in range(first, first + len(latent.u)) if not altered else [-1] * len(latent.u):
            good = i >= 0 and i % 4 < 2
            results.append(Translation("x", False, a.texts(i)[0] if good else "zebra", 0.0 if good else -4.0))
        return results

    monkeypatch.setattr(translator, "decode", decode)
    found = calibrate(translator, a, batch_size=8)
    assert found.plain.items == found.altered.items == 20
    assert found.plain.found == [0.0] * 5 + [1.0] * 5
    assert found.altered.found == [0.0] * 10
    assert found.plain.error < 0.1 and found.altered.error < 0.1
    near = found.confidence.far
    assert found.confidence(0.0, near) > 0.8 and found.confidence(-4.0, near) < 0.1


def test_the_calibration_stays_with_the_checkpoint(token_model, photo, tmp_path, here, monkeypatch):  # noqa: F811
    folder = tmp_path / "model"
    shutil.copytree(token_model, folder)
    status, out, _ = here("img2text", photo, "-m", folder, "--json")
    assert status == 0 and "confidence" not in json.loads(out)
    never = Confidence(slope=0.0, distance=0.0, intercept=0.0, far=2.0)
    width = load_checkpoint(folder, CPU).model.image_encoder.width
    add_confidence(folder, never, torch.eye(3, width))
    export_checkpoint(folder, tmp_path / "small")
    small = load_checkpoint(tmp_path / "small", CPU)
    assert small.confidence == never and torch.equal(small.prototypes.float(), torch.eye(3, width))
    status, out, err = here("img2speech", photo, "-m", tmp_path / "small", "--json", "-o", tmp_path / "out.wav")
    record = json.loads(out)
    assert (status, record["confidence"], record["unfamiliar"]) == (0, 0.5, False)
    assert "unlike" not in err
    add_confidence(tmp_path / "small", never.model_copy(update={"far": -1.0}), torch.eye(3, width))
    status, out, err = here("img2text", photo, "-m", tmp_path / "small", "--json")
    assert status == 0 and json.loads(out)["unfamiliar"]
    assert f"warning: {photo}: is unlike the pictures that the model was trained on" in err
    status, out, _ = here("text2speech", "A dog.", "-m", tmp_path / "small", "--json", "-o", tmp_path / "dog.wav")
    assert status == 0 and "confidence" not in json.loads(out)
    status, out, _ = here("speech2text", tmp_path / "dog.wav", "-m", tmp_path / "small", "--json")
    assert status == 0 and "confidence" not in json.loads(out)  # it was fitted on pictures
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("slope: 0.0", "slope: .nan"))
    status, _, err = here("img2text", photo, "-m", folder)
    assert status == 1 and "slope" in err and len(err.splitlines()) == 1
    config.write_text(config.read_text().replace("slope: .nan", "slope: 0.0"))
    for bad in (torch.eye(3, width + 1), torch.zeros(0, width), torch.full((2, width), torch.inf)):
        add_confidence(folder, never, bad)
        status, _, err = here("img2text", photo, "-m", folder)
        assert status == 1 and "prototypes.safetensors: does not fit" in err and len(err.splitlines()) == 1
    (folder / "prototypes.safetensors").write_bytes(save({"prototypes": torch.ones(2, width)}))  # not of 16 bits
    status, _, err = here("img2text", photo, "-m", folder)
    assert status == 1 and "does not fit" in err


def test_the_command_fits_prints_and_draws(token_model, toy, tmp_path, here, monkeypatch):  # noqa: F811
    pytest.importorskip("matplotlib")
    folder = tmp_path / "model"
    shutil.copytree(token_model, folder)
    held = calibration.Reliability([0.2, 0.6], [0.3, 0.6], 50)
    confidence = Confidence(slope=1.0, distance=-1.0, intercept=0.25, far=0.4)
    prototypes = torch.ones(2, load_checkpoint(folder, CPU).model.image_encoder.width)
    found = calibration.Calibration(confidence, prototypes, held, held)
    monkeypatch.setattr(calibration, "calibrate", lambda *args, **options: found)
    status, _, err = here("calibrate", folder, "--data", toy / "image-text", "--plot", tmp_path / "none" / "plot.png")
    assert status == 1 and "--plot" in err and len(err.splitlines()) == 1
    status, out, _ = here("calibrate", folder, "--data", toy / "image-text", "--plot", tmp_path / "plot.png")
    assert status == 0 and "calibration error 0.050" in out.decode()
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert load_checkpoint(folder, CPU).confidence == confidence

    def trained_on_meanwhile(*args, **options):
        save_file({"other": torch.ones(1)}, folder / "model.safetensors")
        return replace(found, confidence=Confidence(slope=2.0, distance=-1.0, intercept=0.25, far=0.4))

    monkeypatch.setattr(calibration, "calibrate", trained_on_meanwhile)
    status, _, err = here("calibrate", folder, "--data", toy / "image-text")
    assert status == 1 and "was trained on meanwhile" in err
    assert yaml.safe_load((folder / "config.yaml").read_text())["confidence"]["slope"] == 1


def test_a_confidence_of_before_is_not_used_in_fitting(parts, monkeypatch):  # noqa: F811
    a, _, translator = parts
    before = Confidence(slope=0.0, distance=0.0, intercept=0.0, far=-1.0)
    used, decode = [], Translator.decode

    def spy(self, latent, modality):
        used.append(self.confidence)
        return decode(self, latent, modality)

    monkeypatch.setattr(a, "indices", lambda split: np.arange(40))
    monkeypatch.setattr(translator, "confidence", before)
    monkeypatch.setattr(Translator, "decode", spy)
    assert calibrate(translator, a).confidence != before
    assert set(used) == {None} and translator.confidence == before
