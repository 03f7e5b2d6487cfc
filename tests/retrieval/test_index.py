"""The index: built whole or not at all, asked by any modality, and what is wrong with others' refused."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
import yaml
from PIL import Image

from skipmodal.checkpoint import identity
from skipmodal.errors import UserError
from skipmodal.retrieval import nearest, sources
from skipmodal.retrieval.index import ORDER, Index, build_index
from tests.evaluation.test_tasks import parts  # noqa: F401

SHA = "0" * 64


@pytest.fixture
def folder(tmp_path):
    """Three pictures, one of them in a folder, a recording, four sentences, and what is none of these."""
    folder = tmp_path / "my files"
    (folder / "sub").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for name, colour in (("a.jpg", "red"), ("sub/b.PNG", "blue"), ("c.gif", "green"), (".hidden/d.png", "red")):
        Image.new("RGB", (30, 20), colour).save(folder / name, format="PNG")
    soundfile.write(folder / "s.wav", np.sin(np.arange(4000) / 5) * 0.5, 8000)
    (folder / "t.txt").write_text("a dog runs\n\n  two cats \n犬\n")
    (folder / "latin.txt").write_bytes(b"caf\xe9\na bird\n")
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "notes.pdf").write_bytes(b"")
    return folder


@pytest.fixture
def built(parts, folder, tmp_path):  # noqa: F811
    a, b, translator = parts
    skipped = []
    build_index(
        tmp_path / "index",
        [a.path, b.path, folder],
        translator,
        SHA,
        split="val",
        recursive=True,
        batch_size=3,
        skip=skipped.append,
    )
    return Index(tmp_path / "index"), skipped


def u(translator, item, modality):
    return translator.embed([item], modality).numpy()


def test_everything_is_in_it_in_order(parts, built, folder):  # noqa: F811
    a, b, _ = parts
    index, skipped = built
    pictures, recordings = len(a.indices("val")), len(b.indices("val"))
    captions = sum(len(a.texts(i)) for i in a.indices("val"))
    expected = {"image": pictures + 3, "text": captions + recordings + 3, "speech": recordings + 1}
    assert index.meta.counts == expected
    items = [index.item(i) for i in range(len(index))]
    assert [item.modality for item in items] == [name for name in ORDER for _ in range(expected[name])]
    assert [item.path for item in items if item.source == 2] == [
        "a.jpg", "c.gif", "sub/b.PNG", "latin.txt", "t.txt", "t.txt", "s.wav",
    ]  # fmt: skip
    assert [(item.line, item.text) for item in items if item.path == "t.txt"] == [(1, "a dog runs"), (3, "two cats")]
    first = items[0]
    assert (first.item, first.text) == (a.indices("val")[0], a.texts(a.indices("val")[0])[0])
    assert index.where(first) == f"{a.path}#{a.item(first.item)['id']}"
    assert index.where(items[pictures + 3 + captions + recordings + 1]) == f"{folder / 't.txt'}:1"
    assert [meta.split for meta in index.meta.sources] == ["val", "val", None]
    assert len(skipped) == 3
    assert "bad.png: is not a picture" in skipped[0]
    assert "latin.txt:1: is not UTF-8" in skipped[1]
    assert f"{folder / 't.txt'}:4: " in skipped[2]


def test_a_search_is_that_of_brute_force(parts, built, monkeypatch):  # noqa: F811
    *_, translator = parts
    index, _ = built
    monkeypatch.setattr(nearest, "BLOCK", 4)
    everything = np.load(index.path / "vectors.npy")
    np.testing.assert_allclose(np.linalg.norm(everything, axis=1), 1, atol=1e-5)
    queries = np.concatenate([u(translator, "a dog runs", "text"), u(translator, "big cow", "text")])
    kinds = np.array([index.item(i).modality for i in range(len(index))])
    for name in ORDER:
        for scores, hits in zip(queries @ everything[kinds == name].T, index.search(queries, name, 3), strict=True):
            assert [hit.score for hit in hits] == pytest.approx(sorted(scores, reverse=True)[:3], abs=1e-6)
            assert [hit.rank for hit in hits] == [1, 2, 3]
            assert {hit.item.modality for hit in hits} == {name}
    assert len(index.search(queries, "speech", 999)[0]) == index.meta.counts["speech"]


@pytest.mark.parametrize(("modality", "name"), [("image", "sub/b.PNG"), ("speech", "s.wav"), ("text", "two cats")])
def test_an_item_finds_itself_and_its_media(parts, built, folder, modality, name):  # noqa: F811
    *_, translator = parts
    index, _ = built
    item = name if modality == "text" else folder / name
    ((hit, *_),) = index.search(u(translator, item, modality), modality, 1)
    assert hit.score == pytest.approx(1, abs=1e-5)
    assert name in (hit.item.path, hit.item.text)
    source = index.source(hit.item)
    if modality == "image":
        assert source.picture(hit.item).shape == (20, 30, 3)
        assert source.picture(hit.item)[0, 0].tolist() == [0, 0, 255]
    elif modality == "speech":
        wav, rate = source.sound(hit.item)
        assert len(wav) / rate == pytest.approx(0.5)


def test_a_dataset_gives_its_media_and_says_when_it_has_changed(parts, built, monkeypatch):  # noqa: F811
    a, b, _ = parts
    index, _ = built
    picture, recording = index.item(0), index.item(len(index) - 2)
    np.testing.assert_array_equal(index.source(picture).picture(picture), a.image(picture.item))
    wav, rate = index.source(recording).sound(recording)
    assert (len(wav), rate) == (len(b.wav(recording.item)), 8000)
    for wrong in ({"id": "other"}, {"item": 10**6}, {"item": None}, {"modality": "speech"}):
        with pytest.raises(UserError, match="is not what was indexed"):
            index.source(picture).picture(picture.model_copy(update=wrong))


def test_no_path_leads_out_of_its_folder(built, folder, tmp_path):
    index, _ = built
    inside = next(item for item in map(index.item, range(len(index))) if item.path == "a.jpg")
    shutil.copy(folder / "a.jpg", tmp_path / "secret.jpg")
    for path in ("../secret.jpg", str(tmp_path / "secret.jpg"), "gone.jpg", "", None):
        with pytest.raises(UserError, match="no such file any more"):
            index.source(inside).picture(inside.model_copy(update={"path": path}))


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError("disk full"), UserError("bad")])
def test_what_is_interrupted_leaves_nothing(parts, folder, tmp_path, monkeypatch, interruption):  # noqa: F811
    *_, translator = parts
    whole = sources.FolderSource.embed

    def broken(self, translator, modality, *rest):
        yield from whole(self, translator, modality, *rest)
        if modality == "text":
            assert (tmp_path / "index.partial" / "vectors.npy").exists()
            with pytest.raises(UserError, match="no complete index"):
                Index(tmp_path / "index.partial")
            raise interruption

    monkeypatch.setattr(sources.FolderSource, "embed", broken)
    with pytest.raises((KeyboardInterrupt, UserError)):
        build_index(tmp_path / "index", [folder], translator, SHA)
    assert [path.name for path in tmp_path.iterdir()] == ["my files"]


def test_nothing_of_others_is_replaced(parts, folder, tmp_path):  # noqa: F811
    *_, translator = parts
    partial = tmp_path / "index.partial"
    partial.mkdir()
    (partial / "precious").touch()
    with pytest.raises(UserError, match="in the way"):
        build_index(tmp_path / "index", [folder], translator, SHA)
    (partial / "precious").unlink()
    (partial / "vectors.npy").touch()  # what a killed command left
    build_index(tmp_path / "index", [folder], translator, SHA)
    assert not partial.exists()
    with pytest.raises(UserError, match="exists already"):
        build_index(tmp_path / "index", [folder], translator, SHA)
    for source, message in (("none", "no such folder"), ("my files/a.jpg", "is a file")):
        with pytest.raises(UserError, match=message):
            build_index(tmp_path / "other", [tmp_path / source], translator, SHA)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="nothing to index"):
        build_index(tmp_path / "other", [tmp_path / "empty"], translator, SHA)
    with pytest.raises(UserError, match="given twice"):
        build_index(tmp_path / "other", [folder, tmp_path / "empty", folder / "sub" / ".."], translator, SHA)
    assert not (tmp_path / "other").exists()


def test_folders_in_folders_are_asked_for(parts, folder, tmp_path):  # noqa: F811
    shallow = build_index(tmp_path / "index", [folder], parts[2], SHA)
    deep = build_index(tmp_path / "deep", [folder], parts[2], SHA, recursive=True)
    assert deep.counts["image"] == shallow.counts["image"] + 1


def test_vectors_that_are_no_numbers_are_refused(parts, folder, tmp_path):  # noqa: F811
    *_, translator = parts
    translator.model.bottleneck.transformer.input.weight.data.fill_(torch.nan)
    with pytest.raises(UserError, match="not finite"):
        build_index(tmp_path / "index", [folder], translator, SHA)


def edited(index, **changes):
    file = index.path / "index.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **changes}))


def zipped(path):
    with path.open("wb") as file:
        np.savez(file, x=np.zeros(3))


def forge(path, shape):
    """A file of the .npy format whose header claims a shape."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda i: shutil.rmtree(i.path), "no such index"),
        (lambda i: (i.path / "index.yaml").unlink(), "no complete index"),
        (lambda i: (i.path / "index.yaml").write_text("- a"), "format None"),
        (lambda i: edited(i, format=2), "format 2, this version reads format 1"),
        (lambda i: edited(i, more=1), "more: unknown key"),
        (lambda i: edited(i, counts={"image": 1}), "vectors.npy is <f4"),
        (lambda i: edited(i, d_k=8), "vectors.npy is <f4"),
        (lambda i: (i.path / "vectors.npy").unlink(), "damaged"),
        (lambda i: np.save(i.path / "lines.npy", np.array([{}])), "damaged"),
        (lambda i: zipped(i.path / "vectors.npy"), "damaged"),
        (lambda i: (i.path / "vectors.npy").write_bytes(b"PK\x03\x04 cut short"), "damaged"),
        (lambda i: forge(i.path / "vectors.npy", "(99999999999999999999, 16)"), "damaged"),
        (lambda i: forge(i.path / "vectors.npy", "(3, 16"), "damaged"),
        (lambda i: (i.path / "items.jsonl").write_bytes(b"{"), "cut short"),
        (lambda i: (i.path / "items.jsonl").write_bytes(b""), "damaged"),
    ],
)
def test_damaged_ones_are_refused_in_one_line(built, damage, message):
    index, _ = built
    damage(index)
    with pytest.raises(UserError, match=message) as refused:
        Index(index.path)
    assert str(index.path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("line", ["{}", "5", '{"modality":"image","source":9}', '{"modality":"smell","source":0}'])
def test_a_damaged_line_is_named(built, line):
    index, _ = built
    lines = (index.path / "items.jsonl").read_bytes().split(b"\n", 1)
    (index.path / "items.jsonl").write_bytes(line.encode().ljust(len(lines[0])) + b"\n" + lines[1])
    with pytest.raises(UserError, match=r"line 1 of items\.jsonl"):
        Index(index.path).item(0)
    assert Index(index.path).item(1)


def test_a_line_of_another_modality_is_damaged(built):
    index, _ = built
    file = index.path / "items.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"modality":"image"', b'"modality":"text" '))
    with pytest.raises(UserError, match=r"line 1 of items\.jsonl"):
        Index(index.path).item(0)


def test_vectors_of_another_width_or_no_numbers_are_damaged(parts, built):  # noqa: F811
    *_, translator = parts
    index, _ = built
    query, everything = u(translator, "a dog runs", "text"), np.load(index.path / "vectors.npy")
    np.save(index.path / "vectors.npy", everything * np.float32(np.nan))
    with pytest.raises(UserError, match="no number"):
        Index(index.path).search(query, "image", 3)
    np.save(index.path / "vectors.npy", everything[:, :7])
    edited(index, d_k=7)
    with pytest.raises(UserError, match="its vectors are 7 wide, those of the checkpoint 16"):
        Index(index.path).search(query, "image", 3)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "\ud800"])
def test_sources_that_no_folder_can_be_are_gone(built, name):
    index, _ = built
    file = index.path / "index.yaml"
    tree = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**tree, "sources": [{"path": name} for _ in range(3)]}))
    forged = Index(index.path)
    with pytest.raises(UserError, match="no such folder"):
        forged.source(forged.item(0))


def test_another_checkpoint_is_refused(built, tmp_path):
    index, _ = built
    index.check(SHA)
    for name, content in (("a", b"weights"), ("b", b"others")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()
        (tmp_path / name / "model.safetensors").write_bytes(content)
    assert identity(tmp_path / "a") != identity(tmp_path / "b")
    with pytest.raises(UserError, match="another checkpoint"):
        index.check(identity(tmp_path / "a"))
    (tmp_path / "a" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        identity(tmp_path / "a")


def test_a_half_prepared_dataset_is_no_folder_of_files(parts, tmp_path):  # noqa: F811
    *_, translator = parts
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "journal.jsonl").write_text(json.dumps([]))
    with pytest.raises(UserError, match="half-written"):
        build_index(tmp_path / "index", [tmp_path / "d"], translator, SHA)
