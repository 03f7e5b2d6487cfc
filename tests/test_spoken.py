"""How English is read aloud: a table of what is written and what is said."""

from pathlib import Path

import pytest

from skipmodal.text import normalise

CASES = [line.split("\t") for line in (Path(__file__).parent / "spoken.tsv").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("written", "said"), CASES, ids=[written for written, _ in CASES])
def test_table(written: str, said: str) -> None:
    assert normalise(written) == said
    assert normalise(said) == said


@pytest.mark.parametrize(("written", "said"), CASES, ids=[written for written, _ in CASES])
def test_the_same_within_a_sentence(written: str, said: str) -> None:
    before, after = normalise(f"It was {written} that they saw.").split(" that they saw.")
    assert before == normalise(f"It was {said}")
    assert not after


def test_the_table_is_long_enough() -> None:
    assert len(CASES) >= 200
