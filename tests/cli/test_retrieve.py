"""`skipmodal retrieve` and `eval --task retrieval` as a user types them."""

import json
import subprocess
import sys

import pytest

from skipmodal.data.prepared import PreparedDataset
from tests.cli.test_commands import here, photo, untrained, wav  # noqa: F401


@pytest.fixture(scope="module")
def model(toy, tmp_path_factory):
    audio = PreparedDataset(toy / "text-speech").meta.audio
    return untrained(tmp_path_factory.mktemp("model") / "checkpoint", audio=audio)


@pytest.fixture
def index(here, model, toy, tmp_path):  # noqa: F811
    out = tmp_path / "index"
    status, stdout, err = here(
        "retrieve", "build", out, toy / "image-text", toy / "text-speech", "-m", model, "--split", "test"
    )
    assert (status, stdout) == (0, b""), err
    assert f"wrote {out} (image " in err
    return out


def test_help_imports_no_torch():
    script = """
import sys
from skipmodal.cli.app import app
for command in ([], ["build"], ["query"]):
    try:
        app(["retrieve", *command, "--help"])
    except SystemExit as stop:
        assert not stop.code
assert not {"torch", "librosa", "faiss"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--sheet" in done.stdout


def test_a_photo_a_recording_and_a_sentence_find_all_three(here, model, index, photo, wav, tmp_path):  # noqa: F811
    page = tmp_path / "sheet.html"
    status, stdout, err = here(
        "retrieve", "query", index, photo, wav, "a big [red] dog", "-m", model, "-k", 2, "--sheet", page
    )
    assert status == 0, err
    assert err == f"wrote {page}\n"
    shown = stdout.decode()
    assert [name in shown for name in ("photo.jpg", "speech.wav", "a big [red] dog")] == [True] * 3
    assert [shown.count(f"\n{name} ") for name in ("image", "text", "speech")] == [6, 6, 6] and "│" not in shown
    assert page.read_text().count("<section>") == 3


def test_json_lines(here, model, index, toy):  # noqa: F811
    b = PreparedDataset(toy / "text-speech")
    item = b.item(b.indices("test")[0])
    status, stdout, err = here(
        "retrieve", "query", index, item["texts"][0], "-m", model, "--json", "--modality", "text"
    )
    assert (status, err) == (0, "")
    found = [json.loads(line) for line in stdout.splitlines()]
    assert [each["rank"] for each in found] == [1, 2, 3]
    assert found[0]["cosine"] == pytest.approx(1)
    assert {"query", "modality", "source", "item", "id", "text"} <= found[0].keys()
    _, stdout, _ = here(
        "retrieve", "query", index, "a", "-m", model, "--json", "--modality", "image", "--modality", "speech"
    )
    assert [json.loads(line)["modality"] for line in stdout.splitlines()] == ["image"] * 3 + ["speech"] * 3


def test_what_is_left_out_is_told_and_counted(here, model, photo, tmp_path):  # noqa: F811
    for n in range(12):
        (tmp_path / f"bad{n:02d}.png").write_bytes(b"")
    status, _, err = here("retrieve", "build", tmp_path / "index", tmp_path, "-m", model)
    assert status == 0
    assert "bad00.png: is not a picture" in err
    assert "bad11.png" not in err
    assert "left out: 12 in all" in err
    assert "(image 1, text 0, speech 0)" in err
    status, _, err = here("retrieve", "query", tmp_path / "index", "a dog", "-m", model, "--modality", "speech")
    assert (status, "has no speech; it has image" in err) == (1, True)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (["phto.jpg"], "phto.jpg: no such file; --as text"),
        (["notes.md"], "known neither as a picture nor as a recording"),
        (["a dog", "--as", "image"], "a dog: cannot be read"),
        (["\u72ac"], "no character that the model knows"),
        (["a dog", "--sheet", "nowhere/s.html"], "does not exist"),
    ],
)
def test_what_can_be_fixed_is_one_line(here, model, index, tmp_path, monkeypatch, query, message):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.md").touch()
    status, stdout, err = here("retrieve", "query", index, *query, "-m", model)
    assert (status, stdout) == (1, b"")
    assert message in err
    assert err.count("\n") == 1


def test_a_file_is_taken_as_a_sentence_where_it_is_said(here, model, index, photo):  # noqa: F811
    status, stdout, _ = here("retrieve", "query", index, photo, "-m", model, "--as", "text", "-k", 1)
    assert status == 0
    status, other, _ = here("retrieve", "query", index, photo, "-m", model, "-k", 1)
    assert stdout != other


def test_another_checkpoint_is_refused(here, model, index, tmp_path):  # noqa: F811
    small = tmp_path / "small"
    assert here("export", model, small)[0] == 0
    status, stdout, err = here("retrieve", "query", index, "a dog", "-m", small)
    assert (status, stdout) == (1, b"")
    assert "built with another checkpoint" in err
    assert err.count("\n") == 1


def test_wrong_usage(here, index):  # noqa: F811
    for wrong in (["-k", 0], ["--modality", "smell"], ["--as", "smell"]):
        assert here("retrieve", "query", index, "a dog", *wrong)[0] == 2


def test_eval_within_and_across(here, model, toy):  # noqa: F811
    call = ("eval", model, "--task", "retrieval", "--data", toy / "image-text")
    status, stdout, err = here(*call)
    assert status == 0, err
    assert b"image -> text R@10" in stdout
    status, stdout, err = here(*call, "--against", toy / "text-speech")
    assert status == 0, err
    assert b"speech -> image median rank" in stdout
    status, _, err = here(*call, "--against", toy / "text-speech", "--split", "train")
    assert (status, "share a text" in err) == (1, True)
