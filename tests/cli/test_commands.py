"""The command line as a user types it."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from PIL import Image

import skipmodal
from skipmodal import load
from skipmodal.audio import AudioConfig
from skipmodal.checkpoint import Checkpoint, save_checkpoint
from skipmodal.errors import UserError
from skipmodal.image import ImageConfig
from skipmodal.models.system import SkipModal
from skipmodal.recipe import parse_recipe
from skipmodal.tokenizer import Tokenizer
from tests.conftest import TINY

AUDIO = AudioConfig(sample_rate=8000, n_fft=128, win_length=128, hop_length=64, n_mels=8, griffin_lim_iters=3)
COMMANDS = ("img2speech", "img2text", "speech2text", "speech2img", "text2speech", "text2img")


def untrained(folder, kind="vector", audio=AUDIO, words=()):
    """A checkpoint whose speech is over at once, so that nothing hits a cap."""
    torch.manual_seed(0)
    recipe = parse_recipe({"model": TINY[kind] | ({"words": len(words)} if words else {})}, "tiny")
    net = SkipModal(recipe.model, audio, ImageConfig(size=16), Tokenizer(words))
    if kind == "tokens":
        net.speech_decoder.duration[-1].bias.data.fill_(-50.0)
    else:
        net.speech_decoder.stop.bias.data.fill_(50.0)
    save_checkpoint(folder, Checkpoint(net, recipe, audio, ImageConfig(size=16)), "card")
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("model") / "checkpoint")


@pytest.fixture(scope="session")
def token_model(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("model") / "tokens", "tokens")


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.effect_noise((40, 30), 80).convert("RGB").save(path)
    return path


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "speech.wav"
    soundfile.write(path, np.sin(np.arange(8000) / 5) * 0.5, 8000)
    return path


def run(*args, stdin=b"", **options):
    """The real command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "skipmodal", *map(str, args)], input=stdin, capture_output=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120, **options,
    )  # fmt: skip


@pytest.fixture
def here(monkeypatch, capfdbinary):
    """The same in this process, which has torch already: returns status, stdout and stderr."""
    from skipmodal.cli.app import main

    def call(*args, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["skipmodal", *map(str, args)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code or 0
            if isinstance(status, str):
                sys.stderr.write(status + "\n")
                status = 1
        out, err = capfdbinary.readouterr()
        return status, out, err.decode()

    return call


def test_no_help_imports_torch():
    commands = [[], ["prep"], ["prep", "image-text"], ["prep", "text-speech"], ["prep", "toy"], ["train"]]
    commands += [[name] for name in COMMANDS]
    script = f"""
import sys
from skipmodal.cli.app import app
for command in {commands!r}:
    try:
        app([*command, '--help'])
    except SystemExit as stop:
        assert not stop.code, command
    heavy = [name for name in ('torch', 'librosa', 'scipy', 'matplotlib') if name in sys.modules]
    assert not heavy, (command, heavy)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for word in ("img2speech", "train", "prep"):
        assert word in done.stdout


def test_version():
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith(b"skipmodal 0.")


@pytest.mark.parametrize("kind", ["model", "token_model"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_direction_writes_what_it_says(here, request, kind, photo, wav, tmp_path, command):
    model = request.getfixturevalue(kind)
    source, target = command.split("2")
    item = {"img": photo, "speech": wav, "text": "a dog runs"}[source]
    out = tmp_path / {"img": "o.png", "speech": "o.wav", "text": "o.txt"}[target]
    status, stdout, err = here(command, item, "-m", model, "-o", out)
    assert status == 0, err
    assert stdout == b""
    assert f"wrote {out}" in err
    if target == "img":
        assert Image.open(out).size == (16, 16)
    elif target == "speech":
        info = soundfile.info(out)
        frames = 4 if kind == "model" else 1  # one decoder step, or the least there is
        assert (info.samplerate, info.channels, info.frames) == (8000, 1, frames * 64)
    else:
        assert out.read_text().endswith("\n")
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_many_inputs_one_file_each_in_the_chosen_format(here, model, photo, tmp_path, suffix):
    twin = tmp_path / "other.png"
    Image.new("RGB", (8, 8), "red").save(twin)
    out = tmp_path / "out"
    status, _, err = here("img2speech", photo, twin, "-m", model, "-d", out, "--suffix", suffix, "--batch-size", "1")
    assert status == 0, err
    assert sorted(p.name for p in out.iterdir()) == [f"other.{suffix}", f"photo.{suffix}"]
    assert soundfile.info(out / f"photo.{suffix}").format == suffix.upper()


def test_pipes_on_both_sides(model, photo):
    speech = run("img2speech", "-", "-m", model, "-o", "-", stdin=photo.read_bytes())
    assert speech.returncode == 0, speech.stderr
    wav, rate = soundfile.read(io.BytesIO(speech.stdout))
    assert (rate, len(wav)) == (8000, 256)
    text = run("speech2text", "-", "-m", model, "--max-characters", "5", stdin=speech.stdout)
    assert text.returncode == 0
    assert len(text.stdout) <= 6
    assert b"was longer than 5 characters" in text.stderr or len(text.stdout) < 6


def test_sentences_from_stdin_and_json_lines(here, model, tmp_path):
    out = tmp_path / "out"
    status, stdout, _ = here("text2speech", "-", "-m", model, "-d", out, "--json", stdin=b"one dog\n\ntwo cats\n")
    records = [json.loads(line) for line in stdout.splitlines()]
    assert status == 0
    assert [r["input"] for r in records] == ["one dog", "two cats"]
    assert [r["output"] for r in records] == [str(out / "0001.wav"), str(out / "0002.wav")]
    assert records[0]["seconds"] == pytest.approx(256 / 8000)
    assert records[0]["capped"] is False


def test_the_latent_sentence_stands_beside_the_speech(here, token_model, photo, tmp_path):
    status, stdout, _ = here("img2speech", photo, "-m", token_model, "-o", tmp_path / "o.wav", "--json", "--beam", 2)
    assert status == 0
    spoken = json.loads(stdout)
    status, stdout, _ = here("img2text", photo, "-m", token_model, "--beam", 2)
    assert spoken["text"] == stdout.decode().rstrip("\n")
    _, stdout, _ = here("text2speech", "one dog", "-m", token_model, "-o", tmp_path / "t.wav", "--json")
    assert "text" not in json.loads(stdout)


def test_a_bad_input_does_not_stop_the_others(here, model, photo, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    out = tmp_path / "out"
    status, _, err = here("img2speech", bad, photo, tmp_path / "none.png", "-m", model, "-d", out)
    assert status == 1
    assert f"error: {bad}: is not a picture" in err
    assert "2 of 3 inputs could not be read" in err
    assert "Traceback" not in err
    assert [p.name for p in out.iterdir()] == ["photo.wav"]
    status, lines, _ = here("img2text", bad, photo, tmp_path / "none.png", "-m", model)
    assert status == 1
    assert [bool(line) for line in lines.splitlines()] == [False, True, False]  # a line for each input
    status, lines, _ = here("img2text", bad, photo, "-m", model, "--json")
    records = [json.loads(line) for line in lines.splitlines()]
    assert [record["input"] for record in records] == [str(bad), str(photo)]
    assert "is not a picture" in records[0]["error"]
    assert "error" not in records[1]


def test_one_bad_input_is_one_line(here, model, tmp_path):
    status, stdout, err = here("img2text", tmp_path / "none.jpg", "-m", model)
    assert (status, stdout, len(err.splitlines())) == (1, b"\n", 1)
    status, stdout, err = here("img2text", tmp_path / "none.jpg", "-m", model, "--json")
    assert (status, len(err.splitlines())) == (1, 1)
    assert "none.jpg" in json.loads(stdout)["error"]


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("readable", [True, False])
def test_a_full_disk_behind_stdout_is_one_line(model, photo, readable, buffered):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    name = photo if readable else "none.jpg"
    command = [sys.executable, "-m", "skipmodal", "img2text", str(name), "-m", str(model)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    with full.open("w") as stdout:
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment)
    *before, last = done.stderr.splitlines()
    assert done.returncode == 1
    assert (
        last == "skipmodal: error: stdout: cannot be written (No space left on device); free space, or write elsewhere"
    )
    assert all(line.startswith("skipmodal: ") for line in before)  # no traceback


def with_bias(model, layer, value, folder):
    """A copy of a checkpoint whose D_spch has another bias in a layer."""
    net = load(model, "cpu").model
    net.speech_decoder.get_submodule(layer).bias.data.fill_(value)
    save_checkpoint(
        folder, Checkpoint(net, parse_recipe({"model": TINY["vector"]}, ""), AUDIO, ImageConfig(size=16)), ""
    )
    return folder


def test_a_cap_is_reported(here, model, photo, tmp_path):
    folder = with_bias(model, "stop", -50.0, tmp_path / "endless")
    out = tmp_path / "o.wav"
    status, stdout, err = here("img2speech", photo, "-m", folder, "-o", out, "--max-seconds", "0.5", "--json")
    assert status == 0
    assert "was longer than 0.5 s and was cut there" in err
    assert json.loads(stdout)["capped"] is True
    assert soundfile.info(out).duration < 0.5


def test_weights_that_are_not_finite_give_no_silent_wav(tmp_path, model, photo, here):
    folder = with_bias(model, "postnet.linear", torch.nan, tmp_path / "broken")
    status, _, err = here("img2speech", photo, "-m", folder, "-o", tmp_path / "o.wav")
    assert status == 1 and "its weights are damaged" in err
    assert not (tmp_path / "o.wav").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["a.jpg"], "say where the result goes"),
        (["a.jpg", "b.jpg", "-o", "x.wav"], "-o takes one input"),
        (["a.jpg", "-o", "x.mp3"], "unknown suffix"),
        (["a.jpg", "-o", "nowhere/x.wav"], "does not exist"),
        (["a.jpg", "-o", "x.wav", "-d", "out"], "exclude each other"),
        (["a.jpg", "-o", "-", "--json"], "both write to stdout"),
        (["-", "-", "-d", "out"], "more than once"),
        (["a.jpg", "-o", "x.wav", "--device", "tpu"], "device 'tpu'"),
    ],
)
def test_wrong_usage_is_one_line_before_the_model_loads(here, model, args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = here("img2speech", *args, "-m", model)
    assert status == 1
    assert out == b""
    assert message in err
    assert err.count("\n") == 1


def test_wrong_options_exit_2(here, model):
    assert here("img2speech", "a.jpg", "-m", model, "--no-such-option")[0] == 2
    assert here("no-such-command")[0] == 2


def test_failed_write_keeps_the_old_file(here, model, photo, tmp_path):
    out = tmp_path / "o.wav"
    out.write_bytes(b"precious")
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"")
    assert here("img2speech", bad, "-m", model, "-o", out)[0] == 1
    assert out.read_bytes() == b"precious"


def test_training_refuses_before_it_imports_torch():
    script = (
        "import sys; sys.argv = ['skipmodal', 'train', 'paper', 'optim.lrr=1']\nfrom skipmodal.cli.app import main\n"
    )
    script += "try: main()\nexcept SystemExit as stop: print(stop.code, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "did you mean optim.lr?" in done.stdout
    assert done.stdout.strip().endswith("False")


def test_a_closed_pipe_ends_quietly(model):
    lines = "\n".join(["a dog"] * 40)
    process = subprocess.Popen(
        [sys.executable, "-m", "skipmodal", "text2img", "-", "-m", model, "-d", model.parent / "pipe", "--json",
         "--batch-size", "1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    assert process.stderr
    process.stdin.write(lines.encode())
    process.stdin.close()
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read().decode()
    assert process.wait(60) == 1
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


def test_python_api_batch_equals_singles_and_text_is_normalised(model, toy):
    translator = load(model, "cpu")
    photos = sorted((toy / "photos").glob("*.png"))[:3]
    together = translator.img2speech(photos)
    for path, result in zip(photos, together, strict=True):
        np.testing.assert_allclose(translator.img2speech([path])[0].value, result.value, atol=1e-4)
    pixels = translator.text2img(["2 dogs .", "two dogs."])
    np.testing.assert_array_equal(pixels[0].value, pixels[1].value)
    with pytest.raises(UserError, match="no character"):
        translator.text2speech(["犬"])


def test_info_and_export(here, token_model, photo, tmp_path):
    status, stdout, _ = here("info", token_model)
    assert status == 0
    assert b"card" in stdout
    assert b"speech_decoder" in stdout
    small = tmp_path / "small"
    assert here("export", token_model, small)[0] == 0
    assert (small / "model.safetensors").stat().st_size < 0.6 * (token_model / "model.safetensors").stat().st_size
    assert here("img2text", photo, "-m", small)[0] == 0
    status, _, err = here("export", token_model, small)
    assert (status, "exists already" in err) == (1, True)


def test_info_sends_nothing_to_the_terminal_but_text(here, token_model, tmp_path):
    foreign = shutil.copytree(token_model, tmp_path / "foreign")
    tree = yaml.safe_load((foreign / "config.yaml").read_text())
    tree["recipe"]["data"]["image_text"] = "\x1b]0;title\x07"
    (foreign / "config.yaml").write_text(yaml.safe_dump(tree))
    status, out, _ = here("info", foreign)
    assert status == 0 and b"?]0;title?" in out and b"\x1b" not in out


def test_export_leaves_folders_of_similar_names(here, token_model, tmp_path):
    for name in ("small.old", "small.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("precious")
    status, _, err = here("export", token_model, tmp_path / "small")
    assert (status, "small.partial: is in the way" in err) == (1, True)
    (tmp_path / "small.partial").rename(tmp_path / "other")
    assert here("export", token_model, tmp_path / "small")[0] == 0
    assert (tmp_path / "small.old" / "mine.txt").read_text() == "precious"


def test_a_sentence_replaces_no_photo(here, model, photo, tmp_path):
    shutil.copyfile(photo, tmp_path / "photo")
    for out, message in ((photo, "for a sentence use .txt"), (tmp_path / "photo", "is the input")):
        before = out.read_bytes()
        status, _, err = here("img2text", out, "-m", model, "-o", out)
        assert status == 1 and message in err
        assert out.read_bytes() == before
    assert here("img2text", photo, "-m", model, "-o", ".")[0] == 1


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")])
def test_too_little_memory_is_one_line(here, model, photo, tmp_path, monkeypatch, error):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr("skipmodal.translate.Translator.decode", fail)
    status, _, err = here("img2speech", photo, "-m", model, "-o", tmp_path / "o.wav")
    assert status == 1 and "out of memory; make batches smaller" in err and len(err.splitlines()) == 1


def test_eval_prints_a_table_and_writes_a_report(here, toy, tmp_path):
    from skipmodal.data.prepared import PreparedDataset

    audio = PreparedDataset(toy / "text-speech").meta.audio
    folder = untrained(tmp_path / "model", "tokens", audio=audio)
    data = toy / "image-text"
    status, stdout, err = here(
        "eval", folder, "--task", "img2text", "--data", data, "--beam", 1, "--out", tmp_path / "r"
    )
    assert status == 0, err
    assert b"CIDEr-D" in stdout
    assert json.loads((tmp_path / "r" / "report.json").read_text())["split"] == "test"
    status, _, err = here("eval", folder, "--task", "img2speech", "--data", data)
    assert status == 1
    assert "--transcriber" in err


@pytest.mark.parametrize("ways", [("img", "text"), ("image", "txt"), ("", "speech")])
def test_unknown_modalities_are_named(model, photo, ways):
    unknown = next(way for way in ways if way not in ("image", "text", "speech"))
    with pytest.raises(ValueError, match=f"modality '{unknown}' is unknown; there are: image, text, speech"):
        load(model, "cpu").translate([photo], *ways)


def test_the_package_lists_what_it_offers():
    assert {"Translator", "load"} <= set(dir(skipmodal))
