"""report.html: what report.md says, with pictures inside, and nothing from elsewhere."""

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from skipmodal.errors import UserError
from skipmodal.evaluation.report import write_page, write_report
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


def test_the_page_has_the_tables_of_the_markdown(tmp_path):
    noted = report(notes=["SPICE: no Java"])
    write_report(noted, tmp_path)
    write_page(noted, tmp_path)
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert page.cells[:4] == ["figure", "value", "WER", "12.3"]
    rows = [line.strip("| ").split(" | ") for line in (tmp_path / "report.md").read_text().splitlines() if "|" in line]
    assert page.cells == [cell for row in rows if "---" not in row for cell in row]
    for name in ("report.html", "report.md"):
        assert "not comparable" in (tmp_path / name).read_text()
        assert "SPICE: no Java" in (tmp_path / name).read_text()
    assert not (tmp_path / "plots").exists()


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


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, png):
    (tmp_path / "plots").write_text("a file")
    with pytest.raises(UserError, match="plots: cannot be made"):
        write_page(report(), tmp_path, [Picture("one.png", "", png)])
