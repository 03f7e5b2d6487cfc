"""The listening study: the page hides whose a clip is, the key tells it, and figures are those of the answers."""

import base64
import io
import itertools
import json
import re

import numpy as np
import pytest
import soundfile
from PIL import Image

from skipmodal.errors import UserError
from skipmodal.study import page as study_page
from skipmodal.study import score as study
from skipmodal.study.score import QUESTIONS, Answers, Key, read_answers, read_key, score

TONES = {"our-model": 400, "piece-wise": 800, "cycle-gan": 1600}  # Hz: what a system says


def tone(path, hertz, level=0.3, rate=8000, seconds=0.1):
    soundfile.write(path, level * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate), rate)


@pytest.fixture
def folders(tmp_path):
    """Photos, and a folder a system; every system speaks in its own tone and format."""
    (tmp_path / "photos").mkdir()
    for i in range(5):
        Image.new("RGB", (40, 30), (50 * i, 0, 0)).save(tmp_path / "photos" / f"photo{i}.jpg")
    for (name, hertz), suffix in zip(TONES.items(), ("wav", "flac", "ogg"), strict=True):
        (tmp_path / name).mkdir()
        for i in range(5):
            tone(tmp_path / name / f"photo{i}.{suffix}", hertz, level=hertz / 2000)
    return tmp_path


def make(folders, out="study.html", title="Listening study", seed=0, systems=TONES):
    key, _ = study_page.make_study(
        folders / "photos", {name: folders / name for name in systems}, folders / out, title=title, seed=seed
    )
    page = (folders / out).read_text()
    data = re.search(r'<script type="application/json" id="study">(.*?)</script>', page, re.DOTALL)
    return read_key(key), page, json.loads(data[1])


def decoded(uri):
    kind, _, data = uri.partition(";base64,")
    return kind, base64.b64decode(data)


def answer_file(path, key, judge, pick):
    """Answers of one judge; `pick(question, item number)` names a system."""
    answers = []
    for i, item in enumerate(key.items):
        whose = {name: clip for clip, name in item.clips.items()}
        picked = {question: whose[pick(question, i)] for question in QUESTIONS}
        answers.append({"item": item.id, "clips": sorted(item.clips), **picked})
    path.write_text(json.dumps({"format": 1, "study": key.study, "judge": judge, "answers": answers}))
    return path


def table_key(systems, items):
    clips = [{f"i{i}c{n}": name for n, name in enumerate(systems)} for i in range(items)]
    entries = [{"id": f"i{i}", "photo": f"{i}.jpg", "clips": clips[i]} for i in range(items)]
    return Key(study="s", title="t", systems=list(systems), items=entries)


def scored(systems, chosen):
    """The report where `chosen[judge][item]` is the letter of the system picked, for every question."""
    key = table_key(systems, len(chosen[0]))
    answers = []
    for j, row in enumerate(chosen):
        one = []
        for i, letter in enumerate(row):
            clip = f"i{i}c{systems.index(letter)}"
            one.append({"item": f"i{i}", "clips": [], "content": clip, "voice": clip, "overall": clip})
        answers.append(Answers(format=1, study="s", judge=f"j{j}", answers=one))
    return score(key, answers)


def test_the_key_names_the_system_of_every_clip(folders):
    key, _, data = make(folders)
    orders = set()
    for item, hidden in zip(data["items"], key.items, strict=True):
        assert item["id"] == hidden.id
        orders.add(tuple(hidden.clips.values()))
        for clip in item["clips"]:
            kind, wav = decoded(clip["audio"])
            samples, rate = soundfile.read(io.BytesIO(wav))
            heard = np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples)
            assert heard == pytest.approx(TONES[hidden.clips[clip["id"]]], abs=20)
            assert kind == "data:audio/wav"
            assert np.sqrt(np.mean(samples**2)) == pytest.approx(study_page.LOUDNESS, rel=0.02)
    assert len(orders) > 1, "the same system always lies first"


def test_the_page_names_nothing_and_asks_nothing_of_the_network(folders):
    _, page, data = make(folders, title="<script>alert(1)</script> & {{study}}")
    hidden = re.sub(r"base64,[A-Za-z0-9+/=]*", "", page)  # media cannot spell a name with a hyphen anyway
    for name in (*TONES, "photo0", ".flac", ".ogg", str(folders)):
        assert name not in page
    assert "<title>&lt;script&gt;alert(1)&lt;/script&gt; &amp; {{study}}</title>" in page
    assert "alert(1)</script>" not in page.replace("alert(1)&lt;/script", "")
    assert not re.search(r"(https?:)?//\w", hidden.replace("// ", ""))
    assert "default-src 'none'" in page.split("<title>")[0]
    assert data.keys() == {"id", "questions", "items"}


def test_same_seed_same_bytes_another_seed_another_study(folders):
    first, second, other = (make(folders, f"{i}.html", seed=seed) for i, seed in enumerate((0, 0, 1)))
    assert first[0] == second[0] and first[1] == second[1]
    assert other[0].study != first[0].study
    assert [item.clips for item in other[0].items] != [item.clips for item in first[0].items]


def test_photos_are_upright_small_and_without_metadata(folders):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a secret place"
    wide = Image.new("RGB", (1600, 900), "blue")
    wide.paste("red", (0, 0, 800, 900))  # left is up once it is turned by a quarter
    wide.save(folders / "photos" / "photo0.jpg", exif=exif)
    _, _, data = make(folders)
    kind, jpeg = decoded(data["items"][0]["photo"])
    picture = Image.open(io.BytesIO(jpeg))
    assert kind == "data:image/jpeg"
    assert picture.size == (450, 800)
    assert not picture.getexif() and b"secret" not in jpeg
    assert picture.getpixel((225, 100))[0] > 200 and picture.getpixel((225, 700))[2] > 200
    assert Image.open(io.BytesIO(decoded(data["items"][1]["photo"])[1])).size == (40, 30)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "our-model" / "photo3.wav").unlink(), "no audio of our-model for the photo photo3"),
        (lambda f: tone(f / "our-model" / "photo3.flac", 100), "photo3.wav has the same stem"),
        (lambda f: Image.new("RGB", (8, 8)).save(f / "photos" / "photo1.png"), "photo1.png has the same stem"),
        (lambda f: (f / "photos" / "photo1.jpg").write_bytes(b"no"), "photo1.jpg: is not a picture"),
        (lambda f: (f / "our-model" / "photo1.wav").write_bytes(b"no"), "photo1.wav: cannot be read as audio"),
        (lambda f: tone(f / "our-model" / "photo1.wav", 100, seconds=61), "photo1.wav: 61.0 s"),
        (lambda f: [path.unlink() for path in (f / "photos").iterdir()], "0 photos"),
        (lambda f: (f / "study.key.json").write_text("precious"), "exists already"),
    ],
)
def test_what_is_missing_or_ambiguous_is_said_and_nothing_is_written(folders, harm, message):
    harm(folders)
    before = {path: path.read_bytes() for path in folders.glob("study*")}
    with pytest.raises(UserError, match=message):
        make(folders)
    assert {path: path.read_bytes() for path in folders.glob("study*")} == before


def test_wrong_arguments(folders, monkeypatch):
    for options, message in [
        ({"systems": ["our-model"]}, "compares 2 to 6"),
        ({"out": "nowhere/study.html"}, "does not exist"),
        ({"out": "study.txt"}, r"end in \.html"),
        ({"title": "Is Our-Model better?"}, "names the system our-model"),
        ({"title": "a\x1b[2J"}, "must be one line"),
    ]:
        with pytest.raises(UserError, match=message):
            make(folders, **options)
    monkeypatch.setattr(study_page, "MAX_PAGE_BYTES", 5000)
    with pytest.raises(UserError, match="use fewer photos"):
        make(folders)


def test_other_recordings_are_counted_and_silence_stays(folders):
    tone(folders / "our-model" / "of-no-photo.wav", 100)
    tone(folders / "our-model" / "photo0.wav", 100, level=0)
    systems = {name: folders / name for name in TONES}
    _, unknown = study_page.make_study(folders / "photos", systems, folders / "s.html", title="t", seed=0)
    assert [path.name for path in unknown] == ["of-no-photo.wav"]
    data = json.loads((folders / "s.html").read_text().split('id="study">')[1].split("</script>")[0])
    item = read_key(folders / "s.key.json").items[0]
    (wav,) = (decoded(c["audio"])[1] for c in data["items"][0]["clips"] if item.clips[c["id"]] == "our-model")
    assert not soundfile.read(io.BytesIO(wav))[0].any()


def test_percentages_and_deviations_are_those_of_the_table():
    report = scored("abc", ["aaab", "aabb", "aaaa"])
    a, b, c = report.questions[0].systems
    assert [a.chosen, b.chosen, c.chosen] == [9, 3, 0]
    assert [a.percent, b.percent, c.percent] == [75.0, 25.0, 0.0]
    assert a.sd_judges == pytest.approx(25.0)  # of 75, 50, 100
    assert a.sd_items == pytest.approx(np.std([100, 100, 200 / 3, 100 / 3], ddof=1))
    assert a.interval[0] < 75 < a.interval[1] and c.interval == (0, 0)
    question = report.questions[0]
    assert question.chi_square == pytest.approx((25 + 1 + 16) / 4)
    assert question.p_chi_square == pytest.approx(np.exp(-10.5 / 2))  # two degrees of freedom
    assert (question.best, question.second) == ("a", "b")
    assert question.p_best == pytest.approx(2 * (220 + 66 + 12 + 1) / 2**12)
    assert [q.question for q in report.questions] == list(QUESTIONS)
    assert scored("ab", ["ab"]).questions[0].systems[0].sd_judges is None


def test_permutations_keep_together_what_one_judge_says():
    """Two judges of twenty items who always pick the same: certain if independent, nothing by judges."""
    question = scored("ab", ["a" * 20, "a" * 20]).questions[0]
    assert question.p_chi_square < 1e-9
    assert question.p_judges == pytest.approx(0.5, abs=0.03)  # both judges' names agree by chance
    assert question.p_items < 0.001
    split = scored("ab", ["a" * 20, "b" * 20]).questions[0]
    assert split.p_judges == 1 == split.p_items


def test_the_permutation_test_is_exact_on_a_small_table():
    rows = [(3, 1, 0), (2, 2, 0), (4, 0, 0)]
    observed = (np.sum(rows, 0) ** 2).sum()
    all_tables = itertools.product(*(list(itertools.permutations(row)) for row in rows))
    exact = np.mean([(np.sum(table, 0) ** 2).sum() >= observed for table in all_tables])
    assert study._permutation_test(np.array(rows), np.random.default_rng(0)) == pytest.approx(exact, abs=0.02)


def test_the_interval_covers_what_judges_and_items_vary():
    """More judges and items of the same shares make it narrower; it is wider than judgements drawn one by one."""
    rng = np.random.default_rng(0)
    liking = rng.choice([0.2, 0.8], size=10)  # each judge's own taste
    rows = ["".join("a" if rng.random() < p else "b" for _ in range(20)) for p in liking]
    low, high = scored("ab", rows).questions[0].systems[0].interval
    percent = np.mean([letter == "a" for row in rows for letter in row])
    independent = 100 * 2 * 1.96 * np.sqrt(percent * (1 - percent) / 200)
    assert high - low > 1.5 * independent


def test_answers_are_read_back_through_the_key(folders):
    key, _, _ = make(folders)
    picks = {"content": "our-model", "voice": "cycle-gan", "overall": "piece-wise"}
    files = [
        answer_file(folders / f"{judge}.json", key, judge, lambda question, i: picks[question]) for judge in ("a", "b")
    ]
    report = score(key, read_answers(files, key))
    assert {question.question: question.best for question in report.questions} == picks
    assert all(max(row.percent for row in question.systems) == 100 for question in report.questions)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(study="other"), "answers to study other"),
        (lambda a: a["answers"].pop(), "1 of 5 items are not answered"),
        (lambda a: a["answers"].append(a["answers"][0]), "answered twice"),
        (lambda a: a["answers"][0].update(item="i99"), "item i99 is not in the key"),
        (lambda a: a["answers"][0].update(voice="i2c1"), "does not give to it"),
        (lambda a: a["answers"][0].update(clips=["i1c1"]), "does not give to it"),
        (lambda a: a["answers"][0].pop("voice"), r"answers\.0\.voice: Field required"),
        (lambda a: a.update(judge="../x\x1b[2J"), "judge: String should match"),
        (lambda a: a.update(format=2), "format"),
        (lambda a: a.update(more="x" * study.MAX_FILE_BYTES), "larger than 2 MB"),
    ],
)
def test_answers_that_do_not_fit_are_refused(folders, change, message):
    key, _, _ = make(folders)
    good = answer_file(folders / "good.json", key, "a", lambda question, i: "our-model")
    bad = answer_file(folders / "bad.json", key, "b", lambda question, i: "our-model")
    tree = json.loads(bad.read_text())
    change(tree)
    bad.write_text(json.dumps(tree))
    with pytest.raises(UserError, match=message) as refused:
        read_answers([good, bad], key)
    assert str(refused.value).startswith(str(bad)) and "\x1b" not in str(refused.value)


def test_a_judge_counts_once_and_broken_files_are_named(folders):
    key, _, _ = make(folders)
    files = [answer_file(folders / f"{i}.json", key, "a", lambda question, i: "our-model") for i in range(2)]
    with pytest.raises(UserError, match=r"1\.json: judge a has answered in .*0\.json"):
        read_answers(files, key)
    for content in (b"", b"[" * 100_000, b"\xff\xfe", b"null"):
        files[0].write_bytes(content)
        with pytest.raises(UserError, match=r"0\.json: is not a judge's answers"):
            read_answers(files[:1], key)
        with pytest.raises(UserError, match=r"0\.json: is not the key"):
            read_key(files[0])


def test_a_key_that_contradicts_itself_is_refused(folders):
    make(folders)
    path = folders / "study.key.json"
    tree = json.loads(path.read_text())
    tree["items"][0]["clips"]["i1c1"] = tree["items"][0]["clips"]["i1c2"]
    path.write_text(json.dumps(tree))
    with pytest.raises(UserError, match="does not have one clip of each system"):
        read_key(path)
