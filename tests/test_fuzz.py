"""A short run of the fuzzer; `python -m tests.fuzz` is the long one."""

import os
import signal
import time
from pathlib import Path

import pytest

from skipmodal.errors import UserError
from tests.fuzz import run
from tests.fuzz.readers import READERS, Reader
from tests.fuzz.run import BAD, fuzz, table

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@pytest.mark.parametrize("name", READERS)
def test_mutated_inputs_are_read_or_refused(name: str, tmp_path: Path) -> None:
    results = list(fuzz(name, 0, range(20), tmp_path))
    assert [result.number for result in results] == list(range(20))
    assert not [result for result in results if result.outcome in BAD]
    assert any(result.outcome == "read" for result in results)
    assert not list(tmp_path.iterdir())


def _misbehave(folder: Path, changed: Path) -> None:
    """Each input by its first letter."""
    started, kind = time.process_time(), changed.read_bytes()[:1]
    if kind == b"t":
        raise ValueError("a traceback")
    if kind == b"d":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == b"h":
        time.sleep(60)
    if kind == b"s":
        while time.process_time() < started + 1.2:
            pass
    if kind == b"m":
        run._status = lambda key: 3000 << 10  # in this process alone, which ends with it
    if kind == b"l":
        (folder / "out.partial").touch()
    if kind == b"p":
        os.write(1, b"printed")
    if kind == b"w":
        (folder / "out").touch()
    if kind in b"rw":
        return
    raise UserError("no")


def test_what_is_bad_is_told_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(READERS, "bad", Reader(lambda folder: (folder / "x").touch(), _misbehave, frozenset({"out"})))
    monkeypatch.setattr(run, "SECONDS", 1.0)
    monkeypatch.setattr(run, "mutate", lambda data, random: "tdhsmlpwrx"[int(random.number)].encode())
    monkeypatch.setattr(run, "Random", _Numbered)
    results = list(fuzz("bad", 0, range(10), tmp_path))
    assert [result.outcome for result in results] == [
        "traceback", "died", "hang", "hang", "memory", "left behind", "printed", "read", "read", "refused",
    ]  # fmt: skip
    assert "ValueError: a traceback" in results[0].detail
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"bad {i}" for i in range(7)]
    assert table({"bad": results}).splitlines()[1].split()[:5] == ["bad", "10", "2", "1", "1"]


class _Numbered:
    """Stands for Random: knows the input's number, and always changes the first file."""

    def __init__(self, seed: str) -> None:
        self.number = seed.split()[-1]

    def choice(self, things: list[Path]) -> Path:
        return things[0]

    def random(self) -> float:
        return 1.0


def test_the_same_number_is_the_same_input() -> None:
    one = list(fuzz("studies", 3, range(5, 15)))
    again = list(fuzz("studies", 3, range(10, 15)))
    strip = [(result.number, result.outcome, result.detail.split("place")[-1]) for result in one]
    assert strip[5:] == [(result.number, result.outcome, result.detail.split("place")[-1]) for result in again]
