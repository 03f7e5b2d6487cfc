"""The example notebook runs from top to bottom."""

import json
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_every_cell_runs(monkeypatch, capsys):
    monkeypatch.chdir(EXAMPLES)
    cells = json.loads((EXAMPLES / "tour.ipynb").read_text())["cells"]
    names: dict = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    out = capsys.readouterr().out
    assert "WEBVTT" in out and "(confidence 0." in out and "no-such-photo.jpg: cannot be read" in out
    assert names["speech"]._repr_html_().count("<audio") == 1
    assert names["story"].seconds > 2
