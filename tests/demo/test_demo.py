"""The page of `skipmodal demo` in Chromium: a photo in, sound out, on a telephone and on a desk."""

import importlib.util
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile

from skipmodal import translate
from skipmodal.audio import write_audio
from skipmodal.cli import app
from skipmodal.demo import show

PHOTO = Path(__file__).parents[2] / "examples" / "pavilion.jpg"
SECONDS = 120  # a busy machine is slow


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The real command, with the bundled model and a page of a listening study."""
    for package in ("gradio", "matplotlib"):
        if not importlib.util.find_spec(package):
            pytest.skip(f"{package} is not installed")
    folder = tmp_path_factory.mktemp("demo")
    (folder / "study.html").write_text("<p>Which is best?</p>")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "skipmodal", "demo", "--port", str(port), "--max-mb", "1", "--study", "study.html"]
    path = os.pathsep.join((str(PHOTO.parents[1]), os.environ["PYTHONPATH"]))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "GRADIO_TEMP_DIR": str(folder)}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=env, stderr=log, stdout=log)
    deadline = time.monotonic() + SECONDS
    while "open http" not in (folder / "log").read_text():
        assert server.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.2)
    yield f"http://127.0.0.1:{port}"
    server.kill()
    server.wait()
    assert "Traceback" not in (folder / "log").read_text(), (folder / "log").read_text()


@pytest.fixture(scope="module")
def browser():
    program = shutil.which("chromium")
    if not program or not importlib.util.find_spec("playwright"):
        pytest.skip("no chromium, or no playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(address, browser, request):
    """The page at a width, and what its console says that is wrong."""
    context = browser.new_context(viewport={"width": getattr(request, "param", 1440), "height": 900})
    page = context.new_page()
    page.set_default_timeout(SECONDS * 1000)
    problems = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    own = (address, "blob:", "data:")
    page.on("request", lambda sent: None if sent.url.startswith(own) else problems.append(sent.url))
    page.goto(address)
    page.get_by_role("button", name="Say what it shows").wait_for()
    yield page, problems
    context.close()


def heard(page, player):
    """Seconds of sound that a player has: the browser has decoded it and shows its length."""
    page.locator(f"#{player} #duration", has_text=re.compile("0:0[1-9]")).wait_for()
    wav = page.request.get(page.locator(f"#{player} a.download-link").get_attribute("href")).body()
    samples, rate = soundfile.read(io.BytesIO(wav))
    assert np.abs(samples).max() > 0.5
    return len(samples) / rate


@pytest.mark.parametrize("opened", [360, 1440], indirect=True)
def test_a_photo_is_spoken(opened):
    page, problems = opened
    page.locator("#photo input[type=file]").set_input_files(str(PHOTO))
    page.locator("#photo img").wait_for()
    page.get_by_role("button", name="Say what it shows").click()
    assert heard(page, "photo-speech") > 0.5
    (expected,) = translate.load(device="cpu").img2text([PHOTO])
    assert page.get_by_label("Sentence").first.input_value() == expected.text
    assert page.get_by_label("Confidence").input_value().startswith(f"{expected.confidence:.2f}")
    for figure in ("photo-sound", "photo-seen"):
        assert page.locator(f"#{figure} img").evaluate("each => each.naturalWidth") > 500
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"], f"{width} pixels wide"
    assert not problems


def test_a_sentence_is_spoken_and_a_recording_written_down(opened, tmp_path):
    page, problems = opened
    page.get_by_role("tab", name="Text").click()
    page.get_by_placeholder("A dog runs").fill("A dog runs on the beach.")
    page.get_by_role("button", name="Say and draw it").click()
    assert heard(page, "text-speech") > 0.5
    translator = translate.load(device="cpu")
    (speech,) = translator.text2speech(["Two dogs play in the snow."])
    write_audio(tmp_path / "dogs.wav", speech.value, translator.audio.sample_rate)
    page.get_by_role("tab", name="Speech").click()
    page.locator("#recording input[type=file]").set_input_files(str(tmp_path / "dogs.wav"))
    page.get_by_role("button", name="Write it down").click()
    page.wait_for_function("[...document.querySelectorAll('textarea')].some(each => each.value.includes('snow'))")
    assert not problems


def test_an_error_is_one_line(opened, tmp_path):
    page, _ = opened
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    page.get_by_role("button", name="Say what it shows").click()
    page.get_by_text("no photo yet: drop one").wait_for()
    page.locator("#photo input[type=file]").set_input_files(str(tmp_path / "broken.jpg"))
    page.locator("#photo img").wait_for(state="attached")
    page.get_by_role("button", name="Say what it shows").click()
    told = page.get_by_text("broken.jpg: is not a picture of a known format")
    told.wait_for()
    assert "/" not in told.inner_text()


def test_the_study_is_shown_beside_it(opened):
    page, problems = opened
    page.get_by_role("tab", name="Listening study").click()
    page.frame_locator("iframe[title='Listening study']").get_by_text("Which is best?").wait_for()
    assert not problems


def test_large_files_are_refused(address):
    boundary = "x"
    body = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'.encode()
    body += np.random.default_rng(0).bytes(2_000_000) + f"\r\n--{boundary}--\r\n".encode()
    request = urllib.request.Request(
        f"{address}/gradio_api/upload", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    )
    with pytest.raises((urllib.error.HTTPError, ConnectionError)) as refused:
        urllib.request.urlopen(request, timeout=SECONDS)
    assert getattr(refused.value, "code", 413) == 413


def test_it_listens_to_this_machine_alone(address):
    port = int(address.rpartition(":")[2])
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for other in addresses:
        with socket.socket() as knock:
            knock.settimeout(2)
            assert other.startswith("127.") or knock.connect_ex((other, port)) != 0


@pytest.mark.parametrize(
    ("missing", "message"), [("gradio", "the page needs gradio"), ("matplotlib", "its figures need matplotlib")]
)
def test_what_is_not_installed_is_said(missing, message, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else found(name))
    monkeypatch.setattr(sys, "argv", ["skipmodal", "demo"])
    with pytest.raises(SystemExit, match=message):
        app.main()


def test_each_word_is_drawn_where_it_sounds():
    translator = translate.load(device="cpu")
    result, latent = show.translate(translator, PHOTO, "image", "speech")
    sound = show.draw_speech(result.value, translator.audio, result.words)
    ticks = sound.axes[1].get_xticks()
    assert [label.get_text() for label in sound.axes[1].get_xticklabels()] == result.text.split()
    assert all(word.begin < tick < word.end for word, tick in zip(result.words, ticks, strict=True))
    assert show.to_image(show.draw_seen(translator, PHOTO, latent, result.text)).width > 500
