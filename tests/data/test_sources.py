"""Layouts and manifests: the rows they give, and every bad row with its place and reason."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from skipmodal.data import sources
from skipmodal.data.prepare import prepare_text_speech
from skipmodal.data.sources import BadRow, Medium, Row, detect, inside, load, safe_id
from skipmodal.errors import UserError


def read(source: Path, medium: Medium = "image", layout: str | None = None) -> tuple[list[Row], list[BadRow]]:
    every = list(load(layout or detect(source)).rows(source, medium))
    return [row for row in every if isinstance(row, Row)], [row for row in every if isinstance(row, BadRow)]


def table(folder: Path, text: str | bytes, name: str = "m.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def bad_lines(bad: list[BadRow]) -> list[tuple[int, str]]:
    return [(int(row.where.rpartition(":")[2]), row.reason) for row in bad]


# ---------------------------------------------------------------- Flickr8k


@pytest.fixture(params=["Flicker8k_Dataset", "Flickr8k_Dataset", "Images"])
def flickr8k(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    (tmp_path / request.param).mkdir()
    table(
        tmp_path,
        "a.jpg#0\tA dog .\na.jpg#1\tA brown dog .\nb.jpg#0\tA cat .\nc.jpg#0\tA cow .\nno tab here\n\n"
        "d.jpg#0\tIn no list .\n../../e.jpg#0\tOutside .\n",
        "Flickr8k.token.txt",
    )
    for official, photo in (("train", "a.jpg"), ("dev", "b.jpg\r"), ("test", "c.jpg\n../../e.jpg")):
        table(tmp_path, photo + "\n", f"Flickr_8k.{official}Images.txt")
    return tmp_path


def test_flickr8k(flickr8k: Path) -> None:
    rows, bad = read(flickr8k)
    assert [(row.id, row.split, row.texts) for row in rows] == [
        ("a", "train", ("A dog .", "A brown dog .")),
        ("b", "val", ("A cat .",)),
        ("c", "test", ("A cow .",)),
    ]
    assert all(row.media and row.media.parent.is_dir() for row in rows)
    assert rows[1].where == f"{flickr8k / 'Flickr8k.token.txt'}:3"
    assert bad_lines(bad) == [(5, "malformed line"), (7, "in no split"), (8, "unsafe path")]


def test_a_photo_of_several_lists_is_in_none(flickr8k: Path) -> None:
    table(flickr8k, "b.jpg\na.jpg\na.jpg\n", "Flickr_8k.testImages.txt")
    rows, bad = read(flickr8k)
    assert [(row.id, row.split) for row in rows] == []
    assert [line for line, reason in bad_lines(bad) if reason == "in several splits"] == [1, 3]


def test_flickr8k_without_lists_or_photos(flickr8k: Path) -> None:
    for path in flickr8k.glob("*Images.txt"):
        path.unlink()
    rows, _ = read(flickr8k)
    assert [row.split for row in rows] == [None] * 4
    next(path for path in flickr8k.iterdir() if path.is_dir()).rmdir()
    with pytest.raises(UserError, match="no folder of photos"):
        read(flickr8k)


# ---------------------------------------------------------------- COCO


def coco(folder: Path, year: str = "2017") -> Path:
    (folder / "annotations").mkdir(exist_ok=True)
    for number, split in enumerate(("train", "val")):
        (folder / f"{split}{year}").mkdir()
        data = {
            "images": [{"id": number, "file_name": f"{number:04d}.jpg"}],
            "annotations": [{"id": i, "image_id": number, "caption": f"{split} {i}"} for i in range(2)],
        }
        (folder / "annotations" / f"captions_{split}{year}.json").write_text(json.dumps(data))
        (folder / "annotations" / f"instances_{split}{year}.json").write_text("{}")
    return folder


def test_coco_folder(tmp_path: Path) -> None:
    rows, bad = read(coco(tmp_path))
    assert [(row.id, row.split, row.texts) for row in rows] == [
        ("0000", "train", ("train 0", "train 1")),
        ("0001", "val", ("val 0", "val 1")),
    ]
    assert rows[0].media == tmp_path / "train2017" / "0000.jpg"
    assert not bad


def test_coco_of_two_years_is_the_newer_one(tmp_path: Path) -> None:
    coco(tmp_path, "2014")
    coco(tmp_path, "2017")
    rows, _ = read(tmp_path)
    assert [row.media and row.media.parent.name for row in rows] == ["train2017", "val2017"]


def test_coco_file_and_its_bad_entries(tmp_path: Path) -> None:
    file = coco(tmp_path) / "annotations" / "captions_val2017.json"
    data = json.loads(file.read_text())
    data["images"] += [{"id": 7, "file_name": "/etc/passwd"}, {"id": 8, "file_name": "8.jpg"}, {"id": [9]}, 0]
    data["annotations"] += [{"id": 5, "image_id": 7, "caption": "x"}, {"id": 6, "image_id": 8}]
    file.write_text(json.dumps(data))
    rows, bad = read(file)
    assert [row.id for row in rows] == ["0001"]
    assert [row.reason for row in bad] == [
        "malformed annotation", "unsafe path", "no caption", "malformed image entry",
    ]  # fmt: skip
    assert bad[1].where == f"{file}: image 7"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": 3, "annotations": []}', "[" * 100_000, "\xff"])
def test_coco_file_that_is_none(tmp_path: Path, text: str) -> None:
    file = coco(tmp_path) / "annotations" / "captions_val2017.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match="not a COCO captions file"):
        read(file)


def test_coco_without_pictures(tmp_path: Path) -> None:
    (coco(tmp_path) / "val2017").rmdir()
    with pytest.raises(UserError, match=r"no folder of pictures; expected .*val2017"):
        read(tmp_path)


# ---------------------------------------------------------------- LJSpeech


def test_ljspeech(tmp_path: Path) -> None:
    (tmp_path / "wavs").mkdir()
    lines = [
        b'LJ1|He said "12|He said "twelve', b"LJ2|only raw|", b"LJ3|two columns", b"", b"LJ4",
        b"LJ5|a|b|c", b"../LJ6|x|x", b"LJ7|\xff|x", b"|x|x", b"LJ8||",
    ]  # fmt: skip
    table(tmp_path, b"\r\n".join(lines), "metadata.csv")
    rows, bad = read(tmp_path, "audio")
    assert [(row.id, row.texts) for row in rows] == [
        ("LJ1", ('He said "twelve',)), ("LJ2", ("only raw",)), ("LJ3", ("two columns",)), ("LJ8", ("",)),
    ]  # fmt: skip
    assert rows[0].media == tmp_path / "wavs" / "LJ1.wav"
    assert rows[0].split is None
    assert bad_lines(bad) == [
        (5, "malformed line"), (6, "malformed line"), (7, "unsafe path"), (8, "undecodable line"),
        (9, "unsafe path"),
    ]  # fmt: skip


# ---------------------------------------------------------------- LibriSpeech


def librispeech(folder: Path) -> Path:
    """Three splits, of which train has two chapters."""
    for chapter, texts in (
        ("train-clean-100/19/198", ("NORTHANGER ABBEY", "IT'S THE AUTHOR'S")),
        ("train-clean-100/26/495", ("A DOG",)),
        ("dev-other/84/121", ("A CAT",)),
        ("test-clean/61/70", ("A COW",)),
    ):
        *_, speaker, number = chapter.split("/")
        place = folder / "LibriSpeech" / chapter
        place.mkdir(parents=True)
        lines = [f"{speaker}-{number}-{i:04d} {text}\n" for i, text in enumerate(texts)]
        table(place, "".join(lines), f"{speaker}-{number}.trans.txt")
        for i in range(len(texts)):
            tone = np.sin(np.arange(8000) / 20) * 0.3
            soundfile.write(place / f"{speaker}-{number}-{i:04d}.flac", tone, 16000)
    (folder / "LibriSpeech" / "SPEAKERS.TXT").write_text("; ID")
    return folder / "LibriSpeech"


def test_librispeech(tmp_path: Path) -> None:
    root = librispeech(tmp_path)
    rows, bad = read(tmp_path, "audio")
    assert [(row.id, row.split, row.texts[0]) for row in rows] == [
        ("84-121-0000", "val", "a cat"), ("61-70-0000", "test", "a cow"),
        ("19-198-0000", "train", "northanger abbey"), ("19-198-0001", "train", "it's the author's"),
        ("26-495-0000", "train", "a dog"),
    ]  # fmt: skip
    assert all(row.media and row.media.is_file() for row in rows)
    assert rows[3].where == f"{root}/train-clean-100/19/198/19-198.trans.txt:2"
    assert not bad
    assert detect(tmp_path) == detect(root) == "librispeech"
    assert [row.id for row in read(root, "audio")[0]] == [row.id for row in rows]


def test_bad_rows_of_librispeech(tmp_path: Path) -> None:
    root = librispeech(tmp_path)
    chapter = root / "train-clean-100/19/198"
    (root / "dev-other/84/121/84-121.trans.txt").unlink()
    lines = b"19-198-0000 A\n19-198-0002 NOT THERE\n19-198-0003\n\n../x B\n19-198-0004 \xff\n19-198-0000 AGAIN\n C\n"
    table(chapter, lines, "19-198.trans.txt")
    rows, bad = read(tmp_path, "audio")
    assert [row.id for row in rows][1:-1] == ["19-198-0000", "19-198-0002", "19-198-0000"]
    where = f"{chapter}/19-198.trans.txt"
    assert [(row.where, row.reason) for row in bad] == [
        (f"{root}/dev-other/84/121/84-121.trans.txt", "no transcripts"), (f"{where}:3", "malformed line"),
        (f"{where}:5", "unsafe path"), (f"{where}:6", "undecodable line"), (f"{where}:8", "unsafe path"),
        (f"{where}: 19-198-0001.flac", "no transcript"),
    ]  # fmt: skip
    report = prepare_text_speech(tmp_path, tmp_path / "out", jobs=1, device="cpu")
    assert dict(report.kept) == {"train": 2, "test": 1}
    assert dict(report.dropped) == {
        "no transcripts": 1, "malformed line": 1, "unsafe path": 2, "undecodable line": 1, "no transcript": 1,
        "missing file": 1, "duplicate id": 1,
    }  # fmt: skip


def test_librispeech_without_splits_or_chapters(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder train-\*, dev-\* or test-\*; give the folder that has"):
        read(tmp_path, "audio", "librispeech")
    (tmp_path / "test-clean").mkdir()
    with pytest.raises(UserError, match="test-clean: no SPEAKER/CHAPTER folders with recordings"):
        read(tmp_path, "audio", "librispeech")


# ---------------------------------------------------------------- manifests


def test_a_picture_whose_rows_name_several_splits_is_in_none(tmp_path: Path) -> None:
    lines = [
        "image,text,split",
        "a.jpg,One.,train",
        "b.jpg,Two.,val",
        "a.jpg,Three.,",
        "a.jpg,Four.,test",
        "b.jpg,Five.,",
    ]
    rows, bad = read(table(tmp_path, "\n".join(lines), "m.csv"))
    assert [(row.split, row.texts) for row in rows] == [("val", ("Two.", "Five."))]
    assert bad_lines(bad) == [(5, "in several splits")]


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_separators_are_sniffed(tmp_path: Path, separator: str, end: str, bom: str) -> None:
    header = ("Image", "TEXT", "split", "extra")
    lines = [header, ("p/a.jpg", "A dog", "Dev", "1"), (), ("b.jpg", "A cat", "", "2")]
    path = table(tmp_path, bom + end.join(separator.join(line) for line in lines))
    rows, bad = read(path)
    assert [(row.media, row.texts, row.split) for row in rows] == [
        (tmp_path / "p/a.jpg", ("A dog",), "val"),
        (tmp_path / "b.jpg", ("A cat",), None),
    ]
    assert [row.where for row in rows] == [f"{path}:2", f"{path}:4"]
    assert not bad


def test_quoted_fields(tmp_path: Path) -> None:
    body = 'a.jpg,"One, two"\nb.jpg,"over\ntwo lines"\nc.jpg,"a ""b"" c"\nd.jpg,e\n'
    path = table(tmp_path, "image,text\n" + body)
    rows, bad = read(path)
    assert [row.texts[0] for row in rows] == ["One, two", "over\ntwo lines", 'a "b" c', "e"]
    assert [row.where.rpartition(":")[2] for row in rows] == ["2", "3", "5", "6"]
    assert not bad


def test_an_open_quote_costs_one_line(tmp_path: Path) -> None:
    lines = "".join(f"{i}.jpg,text {i}\n" for i in range(50))
    rows, bad = read(table(tmp_path, f'image,text\nx.jpg,"never closed\n{lines}'))
    assert len(rows) == 50
    assert bad_lines(bad) == [(2, "malformed quotes")]
    rows, bad = read(table(tmp_path, f'image,text\nx.jpg,"never closed\n{lines}z.jpg,9"\n'))
    assert len(rows) == 51  # not all swallowed by the text of x.jpg
    assert rows[-1].texts == ('9"',)


def test_quotation_marks_in_tsv(tmp_path: Path) -> None:
    body = 'a.wav\t"Go!" he said.\nb.wav\t"Go\nc.wav\t"all ""quoted"""\n'
    path = table(tmp_path, "audio\ttext\n" + body, "m.tsv")
    rows, bad = read(path, "audio")
    assert [row.texts[0] for row in rows] == ['"Go!" he said.', '"Go', 'all "quoted"']
    assert not bad


def test_rows_of_one_picture_are_merged(tmp_path: Path) -> None:
    path = table(tmp_path, "image,text,split\na.jpg,one,\nb.jpg,two,test\na.jpg,three,val\n")
    rows, _ = read(path)
    assert [(row.id, row.texts, row.split) for row in rows] == [
        ("a", ("one", "three"), "val"), ("b", ("two",), "test"),
    ]  # fmt: skip


def test_json_lines(tmp_path: Path) -> None:
    lines = [
        {"image": "a.jpg", "text": ["one", "two", 3], "id": 17, "unknown": {}},
        {"image": "a.jpg", "text": "four"},
        {"image": "b.jpg", "text": "five", "split": "valid"},
    ]
    good = "".join(json.dumps(line) + "\n" for line in lines)
    bad_ones = ["no", "[1]", '{"text": "x"}', '{"image": "c"}', '{"image": "c", "text": []}', "[" * 9999]
    path = table(tmp_path, "\ufeff" + good + "\n".join(bad_ones), "m.jsonl")
    rows, bad = read(path)
    assert [(row.id, row.texts, row.split) for row in rows] == [
        ("17", ("one", "two", "four"), None), ("b", ("five",), "val"),
    ]  # fmt: skip
    assert bad_lines(bad) == [
        (4, "malformed line"), (5, "malformed line"), (6, "no image given"), (7, "no text"), (8, "no text"),
        (9, "malformed line"),
    ]  # fmt: skip


def test_bad_rows_of_a_table(tmp_path: Path) -> None:
    body = b"a.jpg,x,y\n,text\nb.jpg,\nc.jpg,\xff\xfe\nd\x00.jpg,text\ne.jpg,fine\n"
    rows, bad = read(table(tmp_path, b"image,text\n" + body))
    assert [row.id for row in rows] == ["e"]
    assert bad_lines(bad) == [
        (2, "wrong number of columns"), (3, "no image given"), (4, "no text"), (5, "undecodable line"),
        (6, "unsafe path"),
    ]  # fmt: skip
    _, bad = read(table(tmp_path, "image,text,split\na.jpg,x,trian\n"))
    assert "'trian'" in bad[0].detail


def test_sentences_to_be_spoken(tmp_path: Path) -> None:
    headless = table(tmp_path, '17\tA dog.\n18\tA cat, "a" cow.\n19\n', "s.tsv")
    rows, bad = read(headless, "sentence")
    assert [(row.id, row.texts[0], row.media) for row in rows] == [
        ("17", "A dog.", None), ("18", 'A cat, "a" cow.', None),
    ]  # fmt: skip
    assert bad_lines(bad) == [(3, "wrong number of columns")]
    rows, _ = read(table(tmp_path, "text\nA dog.\nA cat.\n", "t.csv"), "sentence")
    assert [row.id for row in rows] == ["t-2", "t-3"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("a.jpg\tA dog\n", r"m.csv:1: must name the columns text and image; found 'a.jpg, A dog'"),
        ("image,caption\n", "found 'image, caption'"),
        ("a,b\n".encode("utf-16"), "UTF-16"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(table(tmp_path, text))


def test_recordings_keep_their_ids_apart(tmp_path: Path) -> None:
    rows, _ = read(table(tmp_path, "audio,text\nx/1.wav,a\ny/1.wav,b\nx_1.wav,c\n"), "audio")
    assert len({row.id for row in rows}) == 3
    assert all("/" not in row.id for row in rows)


# ---------------------------------------------------------------- names and detection


@pytest.mark.parametrize(
    "raw", ["../../etc/passwd", "/abs", "a\\b", "..", ".", "", "-rf", "a\nb", "x" * 500, "a\0b", "\ud800"]
)
def test_ids_are_harmless_file_names(raw: str) -> None:
    made = safe_id(raw)
    assert made == Path(made).name
    assert made[0] not in ".-"
    assert len(made) < 120
    assert made.isprintable()


def test_ids_stay_apart_and_stay_the_same() -> None:
    assert safe_id("LJ001-0001") == "LJ001-0001"
    assert safe_id("été.1_b") == "été.1_b"
    assert len({safe_id("a/b"), safe_id("a_b"), safe_id("a\\b"), safe_id("a b")}) == 4


def test_inside(tmp_path: Path) -> None:
    assert inside(tmp_path, "a/b.jpg") == tmp_path / "a/b.jpg"
    assert [inside(tmp_path, name) for name in ("", "/a", "../a", "a/../../b", "a\0")] == [None] * 5


def test_detection(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        detect(tmp_path / "none")
    with pytest.raises(UserError, match=r"no known layout.*flickr8k: a folder with"):
        detect(tmp_path)
    with pytest.raises(UserError, match="layout 'mp3' is unknown"):
        load("mp3")
    assert detect(table(tmp_path, "x", "M.TSV")) == "manifest"
    assert detect(coco(tmp_path)) == "coco"
    assert detect(tmp_path / "annotations" / "captions_val2017.json") == "coco"


@pytest.mark.parametrize("layout", sources.LAYOUTS)
def test_a_layout_that_does_not_fit_says_so(tmp_path: Path, layout: str) -> None:
    with pytest.raises(UserError):
        list(load(layout).rows(tmp_path, sources.LAYOUTS[layout][0][0]))
