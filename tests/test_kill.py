"""A few kills of a training and of a preparation; `python -m tests.kill` is the long run."""

import os
import signal
import sys
import time
from pathlib import Path
from random import Random

import pytest

from tests.kill import run
from tests.kill.cases import CASES, Case
from tests.kill.run import Point, kill_points

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts processes in /proc")


@pytest.mark.parametrize(("name", "points"), [("mix", 3), ("workers", 1), ("recordings", 3)])
def test_what_was_killed_ends_with_the_same_bytes(name: str, points: int, tmp_path: Path) -> None:
    results = list(kill_points(name, 0, range(points), tmp_path))
    assert [(result.outcome, result.detail) for result in results if result.outcome != "same"] == []


def _work(data: Path, out: Path) -> None:
    """Goes wrong in as many ways as there are letters, once it is killed."""
    kind = (data / "kind").read_text()
    file = out / "file"
    resumed = file.exists()
    file.write_text("")
    if kind == "l" and not os.fork():
        time.sleep(60)
    if kind == "t":
        print("Traceback", file=sys.stderr)
    if kind == "f" and resumed:
        raise ValueError("no")
    (out / "other").write_text("")
    file.write_text("differs" if kind == "b" and resumed else "same")


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [("s", "same"), ("b", "other bytes"), ("f", "not resumed"), ("t", "traceback"), ("l", "processes left")],
)
def test_what_went_wrong_is_told(kind, outcome, tmp_path, monkeypatch):
    case = Case(lambda data: (data / "kind").write_text("s"), _work)
    monkeypatch.setitem(CASES, "bad", case)
    monkeypatch.setattr(run, "choose", lambda *_: Point("events", 1.5))
    monkeypatch.setattr(run, "LINGER", 0.5)
    whole = run.Straight({"file": run.hashlib.sha256(b"same").hexdigest(), "other": run.hashlib.sha256().hexdigest()},
                         3, 1.0, 4)  # fmt: skip
    data = tmp_path / "data"
    data.mkdir()
    (data / "kind").write_text(kind)
    result = run.kill(case, whole, data, tmp_path / "out", 0, Random(1))
    assert result.outcome == outcome, result.detail
    assert str(-signal.SIGKILL) in result.detail or kind in "lt"
