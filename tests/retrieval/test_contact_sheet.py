"""The contact sheet: everything in the page, nothing of others' runs in it, and its size is bounded."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
from PIL import Image

from skipmodal.retrieval import contact_sheet
from skipmodal.retrieval.contact_sheet import Query, Sheet
from skipmodal.retrieval.index import ORDER, Index, build_index
from tests.evaluation.test_tasks import parts  # noqa: F401

EVIL = "<script>alert('x')</script> & \"a\" dog"


class Page(HTMLParser):
    """Elements with their attributes, and the text."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(html.decode())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def index(parts, tmp_path):  # noqa: F811
    folder = tmp_path / "files"
    folder.mkdir()
    for n in range(2):
        Image.new("RGB", (1200, 600), (90 * n, 0, 0)).save(folder / f'{n}"><img src=x onerror=alert(1)>.png')
    soundfile.write(folder / "long.wav", np.sin(np.arange(8000 * 17) / 5) * 0.5, 8000)
    (folder / "t.txt").write_text(f"{EVIL}\n{'a dog ' * 100}\n")
    build_index(tmp_path / "index", [folder], parts[2], "0" * 64)
    return Index(tmp_path / "index")


def sheet(index, translator, *queries):
    made = Sheet(index)
    for query in queries:
        u = translator.embed([query.item], query.modality).numpy()
        made.add(query, [(name, index.search(u, name, 3)[0]) for name in ORDER])
    return made


def data(attributes, kind):
    head, _, body = attributes["src"].partition(",")
    assert head == f"data:{kind};base64"
    return io.BytesIO(base64.b64decode(body))


def test_pictures_sentences_and_sound_are_in_the_page(parts, index, tmp_path):  # noqa: F811
    picture = next((tmp_path / "files").glob("0*"))
    made = sheet(index, parts[2], Query("image", str(picture)), Query("speech", str(tmp_path / "files" / "long.wav")))
    page = Page(made.html())
    assert made.problems == []
    assert len(page.all("section")) == 2
    assert [Image.open(data(image, "image/jpeg")).size for image in page.all("img")] == [(256, 128)] * 5
    sounds = [soundfile.info(data(audio, "audio/wav")) for audio in page.all("audio")]
    assert [sound.duration for sound in sounds] == [15] * 3
    assert page.text.count("the first 15 s") == 3
    assert all("controls" in audio for audio in page.all("audio"))
    assert "1. 1.000" in page.text


def test_nothing_of_others_runs_or_is_fetched(parts, index):  # noqa: F811
    page = Page(sheet(index, parts[2], Query("text", EVIL)).html())
    assert not page.all("script") + page.all("link") + page.all("iframe")
    assert page.text.count(EVIL) == 2  # the query, and the sentence that was found
    assert all(src.startswith("data:") for tag in ("img", "audio") for src in [a["src"] for a in page.all(tag)])
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "default-src 'none'" in page.all("meta")[1]["content"]
    assert "onerror" in page.text
    assert "a dog " * 100 not in page.text
    assert "…" in page.text


def test_its_size_is_bounded(parts, index, monkeypatch):  # noqa: F811
    queries = [Query("text", "a dog")] * 3
    whole = len(sheet(index, parts[2], *queries).html())
    monkeypatch.setattr(contact_sheet, "MAX_MEDIA_BYTES", 5000)
    made = sheet(index, parts[2], *queries)
    assert len(made.html()) < 5000 + 12000 < whole
    assert made.html().count(b"the sheet is full") == len(made.problems) >= 3


def test_what_is_gone_is_said(parts, index, tmp_path):  # noqa: F811
    (tmp_path / "files" / "long.wav").unlink()
    made = sheet(index, parts[2], Query("text", "a dog"))
    assert b"not there any more" in made.html()
    assert len(made.problems) == 1
    assert "no such file any more" in made.problems[0]
