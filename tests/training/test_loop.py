"""The loop: learns, resumes bit for bit, survives bad steps and signals, keeps the best."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
import yaml
from safetensors.torch import load_file, save

from skipmodal.checkpoint import TRAINER, WORDS, load_tokenizer, load_trainer, resolve_checkpoint
from skipmodal.config import OptimConfig
from skipmodal.data.batches import TrainingBatches
from skipmodal.data.prepared import PreparedDataset
from skipmodal.errors import UserError
from skipmodal.models.system import SkipModal
from skipmodal.recipe import dump_recipe
from skipmodal.tokenizer import Tokenizer
from skipmodal.training import loop
from tests.kill.run import family


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("sampling", ["mix", "alternate"])
def test_training_lowers_the_losses_and_moves_every_parameter(recipe, tmp_path, capsys, sampling):
    chosen = recipe(
        train={"max_steps": 60, "log_every": 10}, optim={"lr": 0.01},
        data={"sampling": sampling}, loss={"text_from_text": 1.0},
    )  # fmt: skip
    torch.manual_seed(chosen.train.seed)
    latest = loop.train(chosen, tmp_path / "run")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train ")]
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    audio, image = (
        PreparedDataset(chosen.data.text_speech).meta.audio,
        PreparedDataset(chosen.data.image_text).meta.image,
    )
    torch.manual_seed(chosen.train.seed)
    fresh = SkipModal(chosen.model, audio, image, Tokenizer()).state_dict()
    trained = weights(latest)
    # A pre-batch-norm bias has no gradient to speak of; everything else must have moved.
    still = [name for name, value in fresh.items() if torch.equal(value, trained[name])]
    assert still == [], still


@pytest.mark.parametrize("changes", [{}, {"model": {"kind": "tokens", "words": 20}, "data": {"linear_frames": 8}}])
def test_train_10_equals_train_5_and_resume_5(recipe, tmp_path, changes):
    def run(steps):
        return recipe(train={"max_steps": steps}, optim={"accumulate": 2, "warmup_steps": 3}, **changes)

    straight = loop.train(run(10), tmp_path / "straight")
    loop.train(run(5), tmp_path / "twice")
    torch.manual_seed(99)  # the resumed run must not depend on the state it finds
    twice = loop.train(run(10), tmp_path / "twice", resume=True)
    assert_same(weights(straight), weights(twice))
    assert load_trainer(twice).numbers["step"] == 10
    for path in straight.iterdir():
        assert path.read_bytes() == (twice / path.name).read_bytes(), path.name


def start(chosen, run, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(dump_recipe(chosen)))
    command = [sys.executable, "-m", "skipmodal", "train", str(path), "--run", str(run), "--resume", "auto"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # A session of its own, whose processes can be signalled together, as a terminal or a scheduler does.
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)


def wait_for(condition, process, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def test_a_killed_run_resumes_to_the_same_weights(recipe, tmp_path):
    def run(steps, minutes):
        return recipe(train={"max_steps": steps, "eval_every": 1000, "checkpoint_minutes": minutes})

    straight = loop.train(run(30, 60), tmp_path / "straight")
    process = start(run(100_000, 0), tmp_path / "killed", tmp_path)  # a checkpoint after every step
    latest = tmp_path / "killed" / "latest"
    wait_for(latest.exists, process)
    time.sleep(0.3)
    process.kill()
    process.communicate()
    at = load_trainer(resolve_checkpoint(latest)).numbers["step"]
    assert at > 0
    steps = max(30, at + 3)
    if steps > 30:
        straight = loop.train(run(steps, 60), tmp_path / "straight", resume=True)
    resumed = loop.train(run(steps, 60), tmp_path / "killed", resume=True)
    assert_same(weights(straight), weights(resumed))


def test_an_interrupt_saves_and_exits_130(recipe, tmp_path):
    run = tmp_path / "run"
    process = start(recipe(train={"max_steps": 100_000, "eval_every": 3, "checkpoint_minutes": 60}), run, tmp_path)
    wait_for((run / "best").exists, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume auto" in err
    assert "Traceback" not in err
    assert load_trainer(run / "latest").numbers["step"] >= 3


def test_batches_that_a_system_learns_nothing_from_are_refused(recipe, tmp_path):
    model = {"kind": "deepspeech2", "channels": 2, "width": 8, "layers": 1}
    with pytest.raises(UserError, match=r"data\.sampling=image-text: a model of kind deepspeech2 learns nothing"):
        loop.train(recipe(model=model, data={"sampling": "image-text"}), tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_its_loaders_too_saves_all_the_same(recipe, tmp_path, number):
    run = tmp_path / "run"
    chosen = recipe(data={"workers": 2}, train={"max_steps": 100_000, "eval_every": 3, "checkpoint_minutes": 60})
    process = start(chosen, run, tmp_path)
    wait_for((run / "best").exists, process)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "--resume auto" in err and "Traceback" not in err
    assert load_trainer(run / "latest").numbers["step"] >= 3


def test_a_signal_in_the_last_step_stops_what_would_follow(recipe, tmp_path, monkeypatch):
    def validate(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return {"loss": 1.0}

    monkeypatch.setattr(loop, "validate", validate)
    with pytest.raises(KeyboardInterrupt):
        loop.train(recipe(train={"max_steps": 2}), tmp_path / "run")
    assert load_trainer(tmp_path / "run" / "latest").numbers["step"] == 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_a_killed_loader_ends_the_training_with_one_line(recipe, tmp_path):
    run = tmp_path / "run"
    chosen = recipe(data={"workers": 1}, train={"max_steps": 100_000, "eval_every": 3, "checkpoint_minutes": 0})
    process = start(chosen, run, tmp_path)
    wait_for((run / "latest").exists, process)
    (loader,) = [pid for pid, command in family(process.pid).items() if " skipmodal train " in command]
    os.kill(loader, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "a process that loads data was killed" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert resolve_checkpoint(run / "latest") == run / "latest"


def test_a_crash_between_two_renames_loses_nothing(recipe, tmp_path):
    run = tmp_path / "run"
    latest = loop.train(recipe(train={"max_steps": 2}), run)
    latest.rename(run / "latest.replaced")  # what a crash at the worst moment leaves
    (run / "latest.partial").mkdir()
    loop.train(recipe(train={"max_steps": 4}), run, resume=True)
    assert load_trainer(run / "latest").numbers["step"] == 4
    assert sorted(path.name for path in run.iterdir() if path.is_dir()) == ["best", "latest", "tensorboard"]


def test_non_finite_steps_are_skipped_and_counted(recipe, tmp_path, capsys, monkeypatch):
    whole = TrainingBatches.__getitem__

    def broken(self, number):
        batch = whole(self, number)
        if number == 1:
            batch.mel[0, 0, 0] = float("nan")
        return batch

    monkeypatch.setattr(TrainingBatches, "__getitem__", broken)
    latest = loop.train(recipe(), tmp_path / "run")
    assert load_trainer(latest).numbers["skipped"] == 1
    assert all(torch.isfinite(value).all() for value in weights(latest).values() if value.is_floating_point())
    assert "skipped 1" in capsys.readouterr().err


@pytest.mark.parametrize(("log_every", "bad", "lines"), [(1, 0, 3), (2, 0, 2), (2, 1, 2), (4, 2, 1)])
def test_a_skipped_step_is_in_no_mean(recipe, tmp_path, capsys, monkeypatch, log_every, bad, lines):
    whole = TrainingBatches.__getitem__

    def broken(self, number):
        batch = whole(self, number)
        nan = {"images": batch.images, "mel": batch.mel}
        return replace(batch, **{name: part * float("nan") for name, part in nan.items()}) if number == bad else batch

    monkeypatch.setattr(TrainingBatches, "__getitem__", broken)
    loop.train(recipe(data={"sampling": "alternate"}, train={"max_steps": 4, "log_every": log_every}), tmp_path / "run")
    logged = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train ")]
    assert len(logged) == lines and not any("nan" in line for line in logged)


def test_too_many_non_finite_steps_stop_with_the_items(recipe, tmp_path, monkeypatch):
    whole = TrainingBatches.__getitem__

    def broken(self, number):
        batch = whole(self, number)
        batch.images.fill_(float("inf"))
        return batch

    monkeypatch.setattr(TrainingBatches, "__getitem__", broken)
    with pytest.raises(UserError, match=r"3 steps in a row .* train-0"):
        loop.train(recipe(optim={"max_bad_steps": 3}, train={"max_steps": 9}), tmp_path / "run")
    latest = tmp_path / "run" / "latest"
    assert all(torch.isfinite(value).all() for value in weights(latest).values())
    numbers = load_trainer(latest).numbers
    assert (numbers["step"], numbers["skipped"]) == (2, 2)  # the third is taken once more by who goes on


@pytest.mark.parametrize("kind", ["tokens", "vector"])
def test_training_on_cached_features_up_to_an_evaluation(recipe, toy, tmp_path, monkeypatch, capsys, kind):
    from functools import partial

    from skipmodal.data.prepare import prepare_image_text
    from skipmodal.features.efficientnet import EfficientNetLite
    from skipmodal.image import ImageConfig
    from tests.conftest import write_captioned_pictures

    # Random ones will do.
    monkeypatch.setattr(EfficientNetLite, "load_published", lambda self, classifier=None: self.eval())
    config = ImageConfig(size=16, encoder="efficientnet_lite0")
    write_captioned_pictures(tmp_path, lambda source, out: None)
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(re.sub(r"([23]).png,train", r"\1.png,val", manifest.read_text()))
    partial(prepare_image_text, image=config)(manifest, tmp_path / "prepared")
    chosen = recipe(
        data={"image_text": str(tmp_path / "prepared"), "batch_size": 4, "linear_frames": 8},
        model={"kind": kind, "embedding": 16}, train={"max_steps": 3, "eval_every": 2},
    )  # fmt: skip
    latest = loop.train(chosen, tmp_path / "run")
    assert "image -> text" in capsys.readouterr().err
    kept = any(name.startswith("image_encoder.backbone") for name in weights(latest))
    assert kept == (kind == "tokens")  # one vector comes from pixels


def test_runs_are_not_overwritten_and_changes_are_refused(recipe, tmp_path):
    loop.train(recipe(train={"max_steps": 2}), tmp_path / "run")
    with pytest.raises(UserError, match="--resume auto"):
        loop.train(recipe(), tmp_path / "run")
    with pytest.raises(UserError, match=r"model\.n_k=8, data\.batch_size=6"):
        loop.train(recipe(model={"n_k": 9}, data={"batch_size": 4}), tmp_path / "run", resume=True)
    for key, value in (("captions", 2), ("spelled", 0.5)):
        with pytest.raises(UserError, match=rf"data\.{key}="):
            loop.train(recipe(data={key: value}), tmp_path / "run", resume=True)
    with pytest.raises(UserError, match=r"optim\.accumulate"):
        loop.train(recipe(optim={"accumulate": 2}), tmp_path / "run", resume=True)
    other = tmp_path / "other"
    shutil.copytree(recipe().data.text_speech, other)
    meta = (other / "dataset.yaml").read_text()
    (other / "dataset.yaml").write_text(meta.replace("ref_db: 30.0", "ref_db: 25.0"))
    with pytest.raises(UserError, match="other audio or image settings"):
        loop.train(recipe(data={"text_speech": str(other)}), tmp_path / "run", resume=True)


def test_a_resumed_run_takes_the_new_optimiser_settings(recipe, tmp_path):
    loop.train(recipe(train={"max_steps": 2}), tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    same = loop.train(recipe(), tmp_path / "run", resume=True)
    other = loop.train(recipe(optim={"betas": [0.5, 0.9], "weight_decay": 0.1}), tmp_path / "other", resume=True)
    assert not torch.equal(
        weights(same)["image_encoder.project.weight"], weights(other)["image_encoder.project.weight"]
    )


def test_a_new_run_starts_from_given_weights(recipe, tmp_path):
    first = loop.train(recipe(train={"max_steps": 2}), tmp_path / "first")
    second = loop.train(recipe(optim={"lr": 1e-30}, train={"max_steps": 1}), tmp_path / "second", init=first)
    assert load_trainer(second).numbers["step"] == 1
    before, after = weights(first), weights(second)
    for name in before:
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(before[name], after[name]), name
    with pytest.raises(UserError, match=r"was trained with model\.n_k=\d+; set it so, or train from fresh weights"):
        loop.train(recipe(model={"n_k": 9}), tmp_path / "third", init=first)


def test_a_card_keeps_the_licences_of_the_weights_it_started_from(recipe, tmp_path):
    first = loop.train(recipe(train={"max_steps": 1}), tmp_path / "first")
    (first / "card.md").write_text("# Theirs\n\n- licence: research only\n")
    loop.train(recipe(train={"max_steps": 1}), tmp_path / "second", init=first)
    second = loop.train(recipe(train={"max_steps": 2}), tmp_path / "second", resume=True)
    third = loop.train(recipe(train={"max_steps": 1}), tmp_path / "third", init=second)
    card, nested = (second / "card.md").read_text(), (third / "card.md").read_text()
    assert card.startswith("# Model card\n\n- trained for 2 steps")
    assert card.endswith("\n## Weights it started from\n\n> # Theirs\n>\n> - licence: research only\n")
    assert "\n> ## Weights it started from\n" in nested and "\n> > - licence: research only\n" in nested
    resumed = loop.train(recipe(train={"max_steps": 2}), tmp_path / "third", resume=True)
    assert (resumed / "card.md").read_text().count("research only") == 1


def test_weights_without_a_card_are_said_to_have_none(recipe, tmp_path):
    first = loop.train(recipe(train={"max_steps": 1}), tmp_path / "first")
    (first / "card.md").unlink()
    second = loop.train(recipe(train={"max_steps": 1}), tmp_path / "second", init=first)
    assert (second / "card.md").read_text().endswith("> latest: has no card, so its data and licences are not known\n")


@pytest.mark.parametrize("change", [{"train": {"only": ["bottleneck"]}}, {"loss": {"self_critical": 1.0}}])
def test_a_late_stage_from_fresh_weights_is_told(recipe, tmp_path, capsys, change):
    train = {"max_steps": 1, **change.pop("train", {})}
    chosen = recipe(model={"kind": "tokens"}, train=train, **change)
    first = loop.train(chosen, tmp_path / "first")
    setting = "train.only" if chosen.train.only else "loss.self_critical"
    assert f"warning: {setting} is for trained weights, and these are fresh; use --init" in capsys.readouterr().err
    loop.train(chosen, tmp_path / "second", init=first)
    assert "is for trained weights" not in capsys.readouterr().err


def test_only_the_named_parts_are_trained(recipe, tmp_path):
    model = {"kind": "tokens", "words": 6, "dropout": 0.3}
    first = loop.train(recipe(model=model, train={"max_steps": 1}), tmp_path / "first")
    only = {"only": ["speech_encoder", "speech_decoder"], "max_steps": 3, "eval_every": 1}
    shared = {"model": {**model, "dropout": 0.1, "speech_warp": 0.1}, "data": {"sampling": "text-speech"}}
    chosen = recipe(train=only, **shared)
    before, after = weights(first), weights(loop.train(chosen, tmp_path / "second", init=first))
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(only["only"])  # no norm of another part either
    with pytest.raises(UserError, match=r"was trained with train\.only=\[.*\]; set it so, or start a new --run"):
        loop.train(recipe(train={"only": ["bottleneck"], "max_steps": 4}, **shared), tmp_path / "second", resume=True)


@pytest.mark.parametrize(
    ("parts", "changes", "message"),
    [
        (["ears"], {}, "no part of the model is 'ears'; it has .*speech_encoder"),
        (["image_encoder"], {"data": {"sampling": "text-speech"}}, "text_from_speech.* trains image_encoder"),
    ],
)
def test_parts_that_cannot_be_trained_are_one_line(recipe, tmp_path, parts, changes, message):
    with pytest.raises(UserError, match=rf"train\.only: .*{message}"):
        loop.train(recipe(train={"only": parts, "max_steps": 1}, **changes), tmp_path / "run")


def test_a_part_that_is_wholly_frozen_is_one_line():
    with pytest.raises(UserError, match=r"train\.only: names nothing but parts that are frozen"):
        loop._optimizer(torch.nn.Linear(1, 1).requires_grad_(False), OptimConfig())


def test_a_new_run_has_the_words_of_the_weights_it_starts_from(recipe, tmp_path):
    model = {"kind": "tokens", "words": 6}
    chosen = recipe(model=model, train={"max_steps": 1}, data={"sampling": "text-speech"})
    first = loop.train(chosen, tmp_path / "first")
    words = load_tokenizer(first, chosen.model).words
    assert len(words) == 6
    second = loop.train(
        recipe(model=model, loss={"image": 0.0, "self_critical": 1.0}, train={"max_steps": 1}),
        tmp_path / "second",
        init=first,
    )
    assert load_tokenizer(second, chosen.model).words == words
    assert (second / WORDS).read_text() == "".join(f"{word}\n" for word in words)
    trained = {
        name.split(".")[0] for name, value in weights(second).items() if not torch.equal(value, weights(first)[name])
    }
    assert "image_encoder" in trained and "image_decoder" not in trained


def test_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(recipe, tmp_path, monkeypatch):
    latest = loop.train(recipe(train={"max_steps": 2}), tmp_path / "run")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("skipmodal.checkpoint.save", full)
    with pytest.raises(UserError, match="No space left"):
        loop.train(recipe(), tmp_path / "run", resume=True)
    assert load_trainer(latest).numbers["step"] == 2


def test_a_latest_that_is_no_checkpoint_is_left_alone(recipe, tmp_path):
    (tmp_path / "run" / "latest").mkdir(parents=True)
    (tmp_path / "run" / "latest" / "thesis.txt").write_text("three years")
    for resume in (False, True):
        with pytest.raises(UserError, match="latest: is not a complete checkpoint; move it"):
            loop.train(recipe(), tmp_path / "run", resume=resume)
    assert (tmp_path / "run" / "latest" / "thesis.txt").exists()


@pytest.mark.parametrize(("only", "power"), [(["speech_encoder"], 1.25), (["speech_decoder"], 2.0)])
def test_a_voice_that_stays_keeps_its_vocoder(recipe, tmp_path, only, power):
    first = loop.train(recipe(train={"max_steps": 1}), tmp_path / "first")
    for folder, value in ((first / "config.yaml", 1.25), (tmp_path / "b" / "dataset.yaml", 2.0)):
        if not folder.exists():
            shutil.copytree(recipe().data.text_speech, folder.parent)
        folder.write_text(re.sub(r"power: [\d.]+", f"power: {value}", folder.read_text()))
    data = {"text_speech": str(tmp_path / "b"), "sampling": "text-speech"}
    for steps in (1, 2):
        init = {"init": first} if steps == 1 else {"resume": True}
        last = loop.train(recipe(data=data, train={"only": only, "max_steps": steps}), tmp_path / "second", **init)
        assert yaml.safe_load((last / "config.yaml").read_text())["audio"]["power"] == power


def test_a_damaged_trainer_state_is_one_line(recipe, tmp_path):
    latest = loop.train(recipe(train={"max_steps": 2}), tmp_path / "run")
    path = latest / TRAINER
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match=r"trainer\.safetensors: cannot be read, so training can't be resumed from it"):
        loop.train(recipe(), tmp_path / "run", resume=True)


@pytest.mark.parametrize("change", ["shape", "type", "index", "part", "step"])
def test_a_trainer_state_of_another_model_is_one_line(recipe, tmp_path, change):
    latest = loop.train(recipe(train={"max_steps": 2}), tmp_path / "run")
    state = load_trainer(latest)
    moment = state.tensors["0.exp_avg"]
    if change == "shape":
        state.tensors["0.exp_avg"] = moment[:1].clone()
    elif change == "type":
        state.tensors["0.exp_avg"] = moment.double()
    elif change == "index":
        state.tensors["9999.exp_avg"] = moment.clone()
    elif change == "part":
        del state.tensors["0.exp_avg"]
    else:
        state.numbers["step"] = "none"
    (latest / TRAINER).write_bytes(save(state.tensors, {TRAINER: json.dumps(state.numbers)}))
    with pytest.raises(UserError, match=r"trainer\.safetensors: does not fit this model") as raised:
        loop.train(recipe(), tmp_path / "run", resume=True)
    assert "\n" not in str(raised.value)


def test_a_training_that_is_refused_leaves_no_folder(recipe, tmp_path):
    with pytest.raises(UserError, match=r"train\.only"):
        loop.train(recipe(train={"only": ["nothing"]}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_cannot_be_made_is_one_line(recipe, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        loop.train(recipe(), tmp_path / "file" / "run")


def test_unfit_data_are_named(recipe, toy, tmp_path):
    with pytest.raises(UserError, match="is a text-speech dataset where image-text is needed"):
        loop.train(recipe(data={"image_text": str(toy / "text-speech")}), tmp_path / "run")


def test_best_is_the_lowest_validation_loss(recipe, tmp_path, monkeypatch):
    losses = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(loop, "validate", lambda *_: {"loss": next(losses)})
    loop.train(recipe(train={"max_steps": 6, "eval_every": 2}), tmp_path / "run")
    assert "trained for 4 steps" in (tmp_path / "run" / "best" / "card.md").read_text()
    assert not (tmp_path / "run" / "best" / TRAINER).exists()


def test_losses_that_never_select_choose_the_best_where_there_are_no_others(recipe, tmp_path, capsys):
    weights = dict.fromkeys(("text_from_speech", "text_from_text", "mel", "linear", "flow", "duration", "prosody"), 0.0)
    weights |= dict.fromkeys(("alignment", "contrastive", "adversary", "letters"), 0.0) | {"ctc": 2.0}
    chosen = recipe(
        model={"kind": "tokens"},
        data={"sampling": "text-speech"},
        loss=weights,
        train={"max_steps": 1, "eval_every": 1},
    )
    loop.train(chosen, tmp_path / "run")
    loss, ctc = re.search(r"val 1: loss (\S+) ctc (\S+)", capsys.readouterr().err).groups()
    assert float(loss) == pytest.approx(2 * float(ctc), rel=1e-3)


@pytest.mark.parametrize(("model", "only"), [({}, []), ({"kind": "tokens", "words": 6}, ["speech_decoder"])])
def test_validating_changes_nothing(recipe, tmp_path, model, only):
    often, once = (
        loop.train(recipe(model=model, train={"max_steps": 4, "eval_every": n, "only": only}), tmp_path / str(n))
        for n in (1, 4)
    )
    assert_same(weights(often), weights(once))


def test_mixed_precision_is_not_used_on_the_cpu_and_says_so(recipe, tmp_path, capsys):
    mixed = loop.train(recipe(optim={"precision": "bf16"}), tmp_path / "mixed")
    assert "training in fp32" in capsys.readouterr().err
    assert_same(weights(mixed), weights(loop.train(recipe(), tmp_path / "full")))


@pytest.mark.parametrize(
    ("decay", "expected"), [("none", [0.5, 1, 1, 1]), ("cosine", [0.5, 1, 1, 0.505]), ("rsqrt", [0.5, 1, 1, 2**-0.5])]
)
def test_schedule(recipe, decay, expected):
    config = recipe(optim={"warmup_steps": 2, "decay": decay}).optim
    factors = [loop._schedule(config, step, 6) for step in (0, 1, 2, 3 if decay != "cosine" else 4)]
    if decay == "rsqrt":
        factors[2] = loop._schedule(config, 1, 6)
    assert factors == pytest.approx(expected)


def test_tensorboard_has_curves_plots_audio_and_captions(recipe, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loop.train(recipe(), tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"train/loss", "train/mel", "train/steps_per_second", "val/loss", "val/text_from_image"} <= set(
        tags["scalars"]
    )
    assert {"samples/text2speech", "samples/alignment_memory", "samples/picture_and_text2img"} <= {
        tag.split("/0")[0] for tag in tags["images"]
    }
    assert {"samples/img2speech_0", "samples/text2speech_0"} <= set(tags["audio"])
