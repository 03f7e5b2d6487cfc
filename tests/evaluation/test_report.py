"""report.html: what report.md says, with pictures inside, every item, and nothing from elsewhere."""

import base64
import io
import json
import os
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from skipmodal.errors import UserError
from skipmodal.evaluation.report import print_report, write_page, write_report
from skipmodal.evaluation.tasks import Report
from skipmodal.plots import Picture

HOSTILE = "</figcaption><script>alert(1)</script>\"' onload=x {title} &amp;"


class Page(HTMLParser):
    """The tags of a page, its pictures, and the cells of its tables."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.images, self.cells, self.captions = [""], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data):
        if self.tags[-1] in ("td", "th") and data.strip():
            self.cells.append(data)
        if self.tags[-1] == "figcaption" and data.strip():
            self.captions.append(data)


@pytest.fixture
def png():
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(buffer, "PNG")
    return buffer.getvalue()


def report(**changes):
    values = {"task": "text2speech", "data": "some data", "split": "val", "items": 2, "figures": {"WER": 12.34}}
    return Report(**{**values, **changes})


def test_the_page_has_the_table_of_the_markdown(tmp_path):
    noted = report(notes=["SPICE: no Java"])
    for published, cells in ((False, ["figure", "value", "WER", "12.3"]), (True, ["system", "WER", "comparable"])):
        write_report(noted, tmp_path, published)
        write_page(noted, tmp_path, published=published)
        page = Page((tmp_path / "report.html").read_text())
        markdown = (tmp_path / "report.md").read_text()
        assert page.cells[: len(cells)] == cells
        rows = [line.strip("| ").split(" | ") for line in markdown.splitlines() if "|" in line]
        shown = [cell for row in rows if "---" not in row for cell in row]
        assert page.cells == [cell for cell in shown if cell.strip(" |")]
        assert ("no: other sentences and voices" in markdown) == published
        assert "SPICE: no Java" in markdown
    assert page.cells[3:6] == ["this checkpoint", "12.3", "DeepVoice3 (table 3)"]
    assert not (tmp_path / "plots").exists()


def test_figures_that_nobody_published_are_not_lost(capsys):
    print_report(report(figures={"WER": 1.0, "empty": 2}), published=True)
    out = capsys.readouterr().out
    assert out.count("measured on") == 1 and "this checkpoint also: empty 2" in out
    print_report(report(task="retrieval", figures={"R@1": 1.0}), published=True)
    assert "R@1" in capsys.readouterr().out


def test_items_are_heard_and_compared_word_by_word_the_worst_first(tmp_path):
    details = [
        {"id": "good", "references": ["a dog", "a cat"], "text": "A cat.", "heard": "a cat"},
        {"id": "bad", "references": ["a dog runs"], "text": "A dog.", "heard": "the dog",
         "audio": f"{tmp_path}/w/b #.wav"},
        {"id": "<b>", "references": ["a dog"], "text": "a dog", "picture": str(tmp_path / "photos" / "x.jpg")},
    ]  # fmt: skip
    write_report(report(details=details), tmp_path)
    write_page(report(details=details), tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert text.index("bad: 2 of 3 words") < text.index("good: 0 of 2 words") < text.index("&lt;b&gt;: 0 of")
    assert "<del>a</del> <ins>the</ins> dog <del>runs</del>" in text
    assert 'src="w/b%20%23.wav"' in text and 'src="photos/x.jpg"' in text
    assert str(tmp_path) not in text + (tmp_path / "items.jsonl").read_text()
    assert details[1]["audio"].startswith(str(tmp_path))  # what was given stays as it is


def test_pictures_are_files_and_lie_in_the_page(tmp_path, png):
    write_page(report(), tmp_path, [Picture("one.png", "first", png), Picture("two.png", "second", png)])
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["one.png", "two.png"]
    assert (tmp_path / "plots" / "two.png").read_bytes() == png
    page = Page((tmp_path / "report.html").read_text())
    assert page.captions == ["first", "second"]
    kind, _, data = page.images[0]["src"].partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == png


def test_nothing_of_the_users_becomes_markup_or_is_fetched(tmp_path, png):
    write_page(
        report(data=HOSTILE, split=HOSTILE, figures={HOSTILE: 1.0}, notes=[HOSTILE]), tmp_path,
        [Picture("one.png", HOSTILE, png)],
    )  # fmt: skip
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags
    assert page.captions == [HOSTILE] and page.images[0]["alt"] == HOSTILE
    assert set(page.images[0]) == {"src", "alt"}
    assert HOSTILE in page.cells
    assert not re.search(r"https?:|src=\"(?!data:)|url\(", text)
    assert "default-src 'none'" in text


def test_names_that_are_no_utf8_are_escaped(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has UTF-8 alone")
    detail = {"id": "one", "references": ["a dog"], "text": "a dog", "audio": str(folder / "one.wav")}
    said = report(data=folder.name, details=[detail])
    write_report(said, tmp_path)
    write_page(said, tmp_path)
    assert json.loads((tmp_path / "items.jsonl").read_text())["audio"] == f"{folder.name}/one.wav"
    assert 'src="caf%E9/one.wav"' in (tmp_path / "report.html").read_text()
    assert "caf\\udce9" in (tmp_path / "report.md").read_text()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, png):
    (tmp_path / "plots").write_text("a file")
    with pytest.raises(UserError, match="plots: cannot be made"):
        write_page(report(), tmp_path, [Picture("one.png", "", png)])
