"""METEOR and SPICE: what is missing is said, and what is there gets the tokens it needs."""

import importlib.util
import shutil
import sys
from types import ModuleType, SimpleNamespace

import pytest

from skipmodal.metrics import java
from skipmodal.metrics.java import CORENLP, java_scores

HYPOTHESES = {"a": "A dog's toy.", "b": "Two men sit."}
REFERENCES = {"a": ["The dog's toy!", "A toy."], "b": ["Two men sit on a bench."]}


@pytest.fixture
def package(monkeypatch, tmp_path):
    """pycocoevalcap with a METEOR and a SPICE that keep what they are given."""
    given = {}
    (tmp_path / "spice" / CORENLP).parent.mkdir(parents=True)
    (tmp_path / "spice" / CORENLP).touch()
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(java.importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(java.shutil, "which", lambda name: "/usr/bin/java")
    for kind, value in (("meteor", 0.25), ("spice", 0.125)):

        def compute_score(self, right, said, kind=kind, value=value):
            given[kind] = (right, said)
            return value, []

        module = ModuleType(f"pycocoevalcap.{kind}.{kind}")
        setattr(module, kind.title(), type(kind, (), {"compute_score": compute_score}))
        monkeypatch.setitem(sys.modules, "pycocoevalcap", ModuleType("pycocoevalcap"))
        monkeypatch.setitem(sys.modules, f"pycocoevalcap.{kind}", ModuleType(f"pycocoevalcap.{kind}"))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return SimpleNamespace(folder=tmp_path, given=given)


def test_both_score_the_tokens(package):
    assert java_scores(HYPOTHESES, REFERENCES) == ({"METEOR": 0.25, "SPICE": 0.125}, [])
    right, said = package.given["meteor"]
    assert said == {"a": ["a dog 's toy"], "b": ["two men sit"]}
    assert right["a"] == ["the dog 's toy", "a toy"]


def test_spice_does_not_download_by_itself(package):
    (package.folder / "spice" / CORENLP).unlink()
    scores, missing = java_scores(HYPOTHESES, REFERENCES)
    assert scores == {"METEOR": 0.25}
    assert len(missing) == 1 and "CoreNLP is missing" in missing[0]
    assert "spice" not in package.given


def test_a_program_that_fails_is_one_line(package, monkeypatch):
    def fail(right, said):
        raise ValueError("could not convert\nstring to float")

    monkeypatch.setattr(java, "_meteor", fail)
    scores, missing = java_scores(HYPOTHESES, REFERENCES)
    assert scores == {"SPICE": 0.125}
    assert len(missing) == 1 and missing[0].startswith("METEOR: failed") and "\n" not in missing[0]


def test_what_is_not_installed_is_named(monkeypatch, package):
    monkeypatch.setattr(java.shutil, "which", lambda name: None)
    assert java_scores(HYPOTHESES, REFERENCES) == ({}, ["METEOR and SPICE: there is no java on the PATH"])
    monkeypatch.setattr(java.importlib.util, "find_spec", lambda name: None)
    scores, (line,) = java_scores(HYPOTHESES, REFERENCES)
    assert not scores and "pip install pycocoevalcap" in line


@pytest.mark.skipif(
    not importlib.util.find_spec("pycocoevalcap") or not shutil.which("java"), reason="pycocoevalcap or Java is missing"
)
def test_meteor_itself_prefers_the_right_sentence():
    (right,), (wrong,) = (
        [java_scores(dict.fromkeys(REFERENCES, text), REFERENCES)[0]["METEOR"]]
        for text in ("two men sit on a bench", "a zebra")
    )
    assert right > 0.3 > wrong
