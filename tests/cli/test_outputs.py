"""Where the synthesis commands take their inputs from, and in which form they give results."""

import io
import json
import re
import shutil

import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.cli.test_commands import here  # noqa: F401
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="session")
def tokens(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("model") / "tokens")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """photos/a.jpg, photos/b.PNG, photos/sub/a.jpg, and what is no picture."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.jpg", "b.PNG", "sub/a.jpg"):
        Image.effect_noise((20, 20), 80).convert("RGB").save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.jpg").write_bytes(b"")
    return folder


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_keeps_its_tree(here, tokens, photos, tmp_path):  # noqa: F811
    assert here("img2speech", photos, "-m", tokens, "-d", "one")[0] == 0
    assert files(tmp_path / "one") == ["a.wav", "b.wav"]
    status, _, err = here("img2speech", photos, "-m", tokens, "-d", "all", "--recursive", "--vtt")
    assert status == 0
    assert files(tmp_path / "all") == ["a.vtt", "a.wav", "b.vtt", "b.wav", "sub/a.vtt", "sub/a.wav"]
    assert 'wrote all/sub/a.wav, all/sub/a.vtt: "' in err
    status, _, err = here("img2speech", photos / "sub", "photos/*.jpg", "-m", tokens, "-d", "two")
    assert (status, err.count("\n")) == (1, 1)
    assert "photos/sub/a.jpg and photos/a.jpg would both become two/a.wav" in err
    assert not (tmp_path / "two").exists()


def test_patterns_and_folders_without_a_file_are_told(here, tokens, photos):  # noqa: F811
    status, out, _ = here("img2text", "photos/**/a.*", "-m", tokens, "--recursive", "--json")
    assert status == 0
    assert [json.loads(line)["input"] for line in out.splitlines()] == ["photos/a.jpg", "photos/sub/a.jpg"]
    for given, message in (("photos/*.gif", "no file matches"), ("empty", "has no image file")):
        (photos.parent / "empty").mkdir(exist_ok=True)
        status, _, err = here("img2text", given, "-m", tokens)
        assert (status, err.count("\n")) == (1, 1)
        assert message in err


def test_what_is_there_is_skipped_or_refused_or_replaced(here, tokens, photos, tmp_path):  # noqa: F811
    command = ("img2speech", photos, "-m", tokens, "-d", "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.wav").write_bytes(b"precious")
    status, _, err = here(*command)
    assert (status, err.count("\n")) == (1, 1)
    assert "out/a.wav: exists already; --skip-existing" in err
    assert files(tmp_path / "out") == ["a.wav"]
    status, out, err = here(*command, "--skip-existing", "--json")
    assert status == 0
    assert [json.loads(line).get("skipped", False) for line in out.splitlines()] == [True, False]
    assert "left out: 1 of 2" in err
    assert (tmp_path / "out" / "a.wav").read_bytes() == b"precious"
    status, _, err = here(*command, "--overwrite")
    assert status == 0 and "out/a.wav (in the place of an older a.wav)" in err
    assert soundfile.info(tmp_path / "out" / "a.wav").frames > 0


def test_times_of_words_in_json_and_beside_the_speech(here, tokens, tmp_path):  # noqa: F811
    out = tmp_path / "o.ogg"
    status, stdout, _ = here(
        "text2speech", "a dog runs", "-m", tokens, "-o", out, "--json", "--rate", 16000, "--srt", "--textgrid"
    )
    assert status == 0
    record = json.loads(stdout)
    assert [word["word"] for word in record["words"]] == ["a", "dog", "runs"]
    begins = [word["begin"] for word in record["words"]]
    assert begins == sorted(begins) and record["words"][-1]["end"] <= record["seconds"] + 0.05
    assert (soundfile.info(out).format, soundfile.info(out).samplerate) == ("OGG", 16000)
    assert "a dog runs" in (tmp_path / "o.srt").read_text()
    assert 'text = "dog"' in (tmp_path / "o.TextGrid").read_text()


def test_a_model_without_times_writes_nothing(here, tmp_path):  # noqa: F811
    model = tiny_checkpoint(tmp_path / "vector", "vector")
    status, _, err = here("text2speech", "a dog", "-m", model, "-o", tmp_path / "o.wav", "--vtt")
    assert (status, err.count("\n")) == (1, 1)
    assert "does not know when each word sounds" in err
    assert not (tmp_path / "o.wav").exists()


def test_a_text_file_is_spoken_whole(here, tokens, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "story.txt").write_text("One dog. Two cats.\n\nThe end", encoding="utf-8-sig")
    assert here("text2speech", "--file", "story.txt", "-m", tokens, "-o", "a.wav", "--pause", 0)[0] == 0
    assert here("text2speech", "--file", "story.txt", "-m", tokens, "-o", "b.flac", "--pause", 3)[0] == 0
    assert soundfile.info("b.flac").frames - soundfile.info("a.wav").frames == 2 * 3 * 8000
    status, out, _ = here("text2speech", "--file", "-", "-m", tokens, "-o", "-", stdin=b"One dog. Two cats. The end")
    assert status == 0
    streamed, _ = soundfile.read(io.BytesIO(out))
    whole, _ = soundfile.read("a.wav")
    silences = np.zeros(2400)
    lengths = [len(streamed), len(whole) + 2 * len(silences)]
    assert lengths[0] == lengths[1]
    status, _, err = here("text2speech", "story.txt", "-m", tokens, "-o", "c.wav")
    assert status == 0 and "story.txt is the name of a file" in err and "--file" in err


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["a dog", "--file", "x.txt", "-o", "x.wav"], 2, "either sentences or --file"),
        (["-o", "x.wav"], 2, "either sentences or --file"),
        (["--file", "none.txt", "-o", "x.wav"], 1, "none.txt: cannot be read"),
        (["--file", "bytes.txt", "-o", "x.wav"], 1, "is not UTF-8"),
        (["--file", "empty.txt", "-o", "x.wav"], 1, "is empty"),
        (["--file", "kanji.txt", "-o", "x.wav"], 1, "no character that the model knows"),
        (["a dog", "-o", "-", "--vtt"], 1, "-o - has none"),
        (["a dog runs", "-o", "x.wav", "--max-seconds", "0.1"], 1, "takes more than 0.1 s"),
        (["a dog", "-o", "x.wav", "--pause", "-1"], 2, "--pause"),
        (["a dog", "-o", "x.wav", "--pause", "inf"], 2, "--pause"),
        (["--file", "/dev/zero", "-o", "x.wav"], 1, "/dev/zero: more than 200 MB"),
    ],
)
def test_what_can_be_wrong_with_texts(here, tokens, tmp_path, monkeypatch, args, status, message):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "kanji.txt").write_text("One dog.\n\n\u72ac\n")
    found, out, err = here("text2speech", *args, "-m", tokens)
    assert (found, out) == (status, b"")
    assert message in re.sub(r"[\s│]+", " ", err)
    assert not (tmp_path / "x.wav").exists()


def test_json_is_readable(here, tokens, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("caf\u00e9.png")
    shutil.copy("caf\u00e9.png", b"\xff.png")
    status, out, _ = here("img2text", "caf\u00e9.png", "\udcff.png", "-m", tokens, "--json")
    assert status == 0
    assert "café.png" in out.decode()
    assert json.loads(out.splitlines()[1])["input"] == "\udcff.png"
