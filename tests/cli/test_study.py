"""`skipmodal study` as a user types it, and the page in a real browser, which plays every clip."""

import base64
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from PIL import Image

from skipmodal.cli import app
from skipmodal.study.score import QUESTIONS

SYSTEMS = ("our-model", "piece-wise", "cycle-gan")  # a hyphen is in no base64
SYSTEM_OPTIONS = [option for name in SYSTEMS for option in ("--system", f"{name}={name}")]
PICKS = dict(zip(QUESTIONS, SYSTEMS, strict=True))  # what the first judge of the browser picks
ITEMS = 4
STEP = 0.1  # radians a sample: the first system's tone; the others' are two and three times as high


def study(*args, cwd):
    """The real command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "skipmodal", "study", *map(str, args)], capture_output=True, text=True, check=False,
        cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A study of four photos and three systems, as the command makes it."""
    folder = tmp_path_factory.mktemp("study")
    for name in ("photos", *SYSTEMS):
        (folder / name).mkdir()
    for i in range(ITEMS):
        Image.new("RGB", (60, 40), (60 * i, 90, 90)).save(folder / "photos" / f"p{i}.png")
        for n, name in enumerate(SYSTEMS):
            wav = 0.5 * np.sin(np.arange(1200) * STEP * (n + 1))
            soundfile.write(folder / name / f"p{i}.wav", wav, 8000)
    done = study("make", "photos", *SYSTEM_OPTIONS, "-o", "study.html", cwd=folder)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "wrote study.html for the judges, and study.key.json" in done.stderr
    return folder


def answers(folder, judge, system):
    key = json.loads((folder / "study.key.json").read_text())
    rows = []
    for item in key["items"]:
        (clip,) = (clip for clip, name in item["clips"].items() if name == system)
        rows.append({"item": item["id"], "clips": list(item["clips"]), **dict.fromkeys(QUESTIONS, clip)})
    path = folder / f"answers-{judge}.json"
    path.write_text(json.dumps({"format": 1, "study": key["study"], "judge": judge, "answers": rows}))
    return path.name


def test_scores_are_printed_and_written(folder):
    files = [answers(folder, f"x{i}", name) for i, name in enumerate((SYSTEMS[0], SYSTEMS[0], SYSTEMS[1]))]
    done = study("score", "study.key.json", *files, "-o", "report.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Listening study: 3 judges, 4 photos" in done.stdout
    assert re.search(r"our-model +8 +66\.7 +57\.7 +0\.0 ", done.stdout) and "│" not in done.stdout
    assert done.stdout.count("78.6 % (sd 27.6)") == 1
    report = json.loads((folder / "report.json").read_text())
    assert report["judges"] == ["x0", "x1", "x2"]
    assert report["questions"][0]["systems"][0]["percent"] == pytest.approx(200 / 3)
    again = study("score", "study.key.json", files[0], files[0], cwd=folder)
    assert again.returncode == 1
    assert "judge x0 has answered in" in again.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--system", "a"], "expected NAME=FOLDER"),
        (["--system", "=photos"], "expected NAME=FOLDER"),
        (["--system", "Our-Model=photos"], "given twice"),
        (["--system", "a=nowhere", "-o", "b.html"], "nowhere: is not a folder"),
        (["-o", "study.html"], "exists already"),
    ],
)
def test_what_is_wrong_is_one_line(folder, args, message, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["skipmodal", "study", "make", "photos", *SYSTEM_OPTIONS, *args])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert message in stopped.value.code
    assert "\n" not in stopped.value.code
    assert capsys.readouterr() == ("", "")


def test_help_imports_nothing_heavy():
    script = """
import sys
from skipmodal.cli.app import app
for command in (['study'], ['study', 'make'], ['study', 'score']):
    try:
        app([*command, '--help'])
    except SystemExit as stop:
        assert not stop.code, command
print([name for name in ('torch', 'librosa', 'scipy', 'matplotlib') if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


# The page in Chromium


@pytest.fixture(scope="module")
def browser():
    program = shutil.which("chromium")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed (pip install playwright)")
    if program is None:
        pytest.skip("there is no chromium on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, folder):
    """The page from its file; at the end nothing has left it and no script has failed."""
    context = browser.new_context(offline=True, accept_downloads=True)
    page = context.new_page()
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.goto((folder / "study.html").as_uri())
    yield page
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert {url for url in requests if url.startswith("file:")} == {(folder / "study.html").as_uri()}
    assert errors == []
    context.close()


def enter(page, judge):
    page.get_by_label("Your judge code").fill(judge)
    page.keyboard.press("Enter")


def clips(page):
    """Ids of the shown item's clips, in the order of the letters."""
    return page.locator("fieldset").first.locator("input").evaluate_all("radios => radios.map(radio => radio.value)")


def hear(page):
    for i in range(len(SYSTEMS)):
        page.locator("audio").nth(i).evaluate("audio => audio.play()")
        page.locator(".clip small").nth(i).filter(has_text=re.compile("^heard$")).wait_for()


def voices(page):
    """Whose voice the players A, B, C have, by ear: the fixture gives each system a tone of its own."""
    heard = []
    for letter in "ABC":
        source = page.get_by_label(f"Sample {letter}", exact=True).get_attribute("src")
        samples, _ = soundfile.read(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        heard.append(SYSTEMS[round(np.abs(np.fft.rfft(samples)).argmax() * 2 * np.pi / len(samples) / STEP) - 1])
    assert sorted(heard) == sorted(SYSTEMS)
    return heard


def pick(page):
    """Picks what PICKS says by what is heard; gives the item's clips as shown."""
    heard = voices(page)
    for i, system in enumerate(PICKS.values()):
        page.locator("fieldset").nth(i).get_by_label("ABC"[heard.index(system)], exact=True).check()
    return clips(page)


def test_a_judge_goes_through_the_page_and_the_command_scores_it(page, folder):
    enter(page, "J-1")
    orders = []
    for i in range(ITEMS):
        page.get_by_role("heading", name=f"Photo {i + 1} of {ITEMS}").wait_for()
        assert page.locator("img").evaluate("async image => (await image.decode(), image.naturalWidth)") == 60
        following = page.get_by_role("button", name="Finish" if i + 1 == ITEMS else "Next")
        shown = pick(page)
        assert following.is_disabled(), "answered, but nothing was heard"
        hear(page)
        assert following.is_enabled()
        if i == 1:  # answers, what was heard, the place and the order survive a reload
            page.reload()
            page.get_by_role("heading", name=f"Photo 2 of {ITEMS}").wait_for()
            assert clips(page) == shown
            assert page.locator("input:checked").count() == len(QUESTIONS)
            assert following.is_enabled()
        if i == 2:  # back and forth
            page.get_by_role("button", name="Back").click()
            assert clips(page) == orders[1]
            assert page.locator("input:checked").count() == len(QUESTIONS)
            following.click()
        orders.append(shown)
        following.click()
    page.get_by_role("heading", name="Thank you").wait_for()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download answers").click()
    assert download.value.suggested_filename == "answers-j-1.json"
    download.value.save_as(folder / "answers-j-1.json")
    text = (folder / "answers-j-1.json").read_text()
    assert text == page.get_by_label("copy this text").input_value()
    assert [answer["clips"] for answer in json.loads(text)["answers"]] == orders

    done = study("score", "study.key.json", "answers-j-1.json", "-o", "browser.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    for question in json.loads((folder / "browser.json").read_text())["questions"]:
        assert {row["system"]: row["chosen"] for row in question["systems"]} == {
            name: ITEMS * (name == PICKS[question["question"]]) for name in SYSTEMS
        }


def test_the_keyboard_alone_completes_an_item(page):
    page.keyboard.type("keys")  # the code has the focus
    page.keyboard.press("Enter")
    page.locator("audio").first.wait_for()
    for i, press in enumerate("a2C"):
        page.keyboard.press(press)
        page.locator(".clip small").nth(i).filter(has_text=re.compile("^heard$")).wait_for()
    answered = 0
    for _ in range(40):
        page.keyboard.press("Tab")
        focused = page.evaluate("[document.activeElement.type ?? '', document.activeElement.id]")
        if focused[0] == "radio":
            page.keyboard.press("Space" if answered % 2 else "ArrowRight")
            answered += 1
        if focused[1] == "next":
            break
    assert answered == len(QUESTIONS)
    assert page.evaluate("document.activeElement.matches(':focus-visible')")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=f"Photo 2 of {ITEMS}").wait_for()


def test_judges_get_their_own_orders_and_one_judge_always_the_same(page, browser, folder):
    def order(code):
        return page.evaluate(
            "code => { begin(code); return items.map(item => [item.id, item.clips.map(clip => clip.id)]); }", code
        )

    orders = {code: order(code) for code in ("j1", "j2", "j3")}
    assert orders["j1"] == order("j1")
    firsts = [[item for item, _ in order] for order in orders.values()]
    assert len({tuple(items) for items in firsts}) > 1, "items come in one order for all"
    within = [tuple(tuple(clips) for _, clips in sorted(order)) for order in orders.values()]
    assert len(set(within)) == 3, "two judges have the same letters for the same systems"
    assert all(sorted(items) == sorted(firsts[0]) for items in firsts)
    another = browser.new_page()
    another.goto((folder / "study.html").as_uri())
    enter(another, "j2")
    another.locator("audio").first.wait_for()
    assert clips(another) == orders["j2"][0][1]
    another.close()


def test_nothing_on_the_page_names_a_system_and_it_fits_a_phone(page, folder):
    page.set_viewport_size({"width": 320, "height": 640})
    enter(page, "phone")
    page.locator("audio").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for text in (page.content(), (folder / "study.html").read_text()):
        assert [name for name in (*SYSTEMS, "p0.png") if name.lower() in text.lower()] == []
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light


def test_the_browser_itself_refuses_the_network(browser, folder):
    page = browser.new_page(offline=True)
    page.goto((folder / "study.html").as_uri())
    refused = page.evaluate("""() => new Promise((done) => {
        document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
        fetch("https://example.org/").finally(() => setTimeout(done, 500, "nothing"));
    })""")
    assert refused == "connect-src"
    page.close()


def test_another_judge_begins_anew_and_codes_are_checked(page):
    enter(page, "../x")
    assert page.locator("#item").is_hidden()
    for code in ("__proto__", "constructor"):
        enter(page, code)
        page.get_by_role("heading", name=f"Photo 1 of {ITEMS}").wait_for()
        assert page.locator("input:checked").count() == 0
        page.locator("fieldset").first.get_by_label("A", exact=True).check()
        page.get_by_role("button", name="Back").click()
    enter(page, "__proto__")
    assert page.locator("input:checked").count() == 1
