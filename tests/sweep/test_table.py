"""Means, deviations and intervals by hand; Markdown, CSV and a picture."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from skipmodal.sweep.plan import load_plan
from skipmodal.sweep.runner import Result
from skipmodal.sweep.table import Cell, as_csv, markdown, tabulate, write_tables


@pytest.fixture
def found(sweep, tmp_path):
    file = sweep(seeds=[0, 1, 2], paper={"table 4": "Ma et al. w/o T", "table 6": "n_k 10, d_k 256"})
    plan = load_plan(str(file), tmp_path)
    figures = [(10, 60), (20, 60), (60, 60), (7, None), (0, 0), (0, 0)]
    runs = sorted(plan.runs, key=lambda run: run.system)  # all seeds of a system together
    results = {
        run: Result({"img2text whole": a, "img2speech whole": b, "modality from z": 50.0}, 60.0 * k)
        for k, (run, (a, b)) in enumerate(zip(runs, figures, strict=True))
    }
    for run in runs[4:]:
        results[run] = Result({}, 0.0, "went wrong")
    return plan, results


def test_a_cell_by_hand():
    cell = Cell((10.0, 20.0, 60.0))
    assert cell.mean == 30
    assert cell.deviation == pytest.approx(700**0.5)  # (400 + 100 + 900) / 2
    assert cell.interval == pytest.approx((30 - 65.724, 30 + 65.724), abs=1e-2)  # t of 2 degrees: 4.3027
    assert str(cell) == "30.0 ± 26.5"
    assert (str(Cell((7.0,))), Cell((7.0,)).interval) == ("7.0", None)
    assert (str(Cell(())), Cell(()).interval) == ("-", None)


def read(table):
    heads, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    return [dict(zip(heads, line, strict=True)) for line in lines]


def test_the_table_has_the_papers_rows_and_leaves_failed_runs_out(found):
    plan, results = found
    ours, note, published, warning = markdown(plan, tabulate(plan, results)).strip().split("\n\n")
    full, without = read(ours)
    assert full == {
        "system": "full", "seeds": "3", "img2text whole": "30.0 ± 26.5", "img2speech whole": "60.0 ± 0.0",
        "modality from z": "50.0 ± 0.0", "modality from z, by C": "-",
        "modality from z (image or text)": "-", "CPU minutes": "1.0 ± 1.0",
    }  # fmt: skip
    assert (without["seeds"], without["img2text whole"], without["img2speech whole"]) == ("1", "7.0", "-")
    assert "seeds 0, 1, 2" in note
    assert read(published)[0] == {
        "system": "full", "table 4: img2text BLEU-1": "68.6", "table 4: speech2text WER": "6.01",
        "table 6: img2text BLEU-1": "62.5",
    }  # fmt: skip
    assert "not comparable" in warning


def test_the_csv_is_unrounded_and_has_the_intervals(found):
    plan, results = found
    rows = list(csv.DictReader(io.StringIO(as_csv(plan, tabulate(plan, results)))))
    assert float(rows[0]["img2text whole"]) == 30
    assert float(rows[0]["img2text whole sd"]) == pytest.approx(26.4575)
    assert float(rows[0]["img2text whole 95% low"]) == pytest.approx(-35.724, abs=1e-2)
    assert rows[1]["img2text whole sd"] == rows[1]["img2text whole 95% high"] == ""
    assert rows[1]["table 4: speech2text WER"] == "6.01"


def test_files_and_the_picture(found, tmp_path):
    plan, results = found
    text = write_tables(plan, results, tmp_path)
    assert (tmp_path / "table.md").read_text() == text
    assert (tmp_path / "table.csv").read_text().startswith("system,seeds,img2text whole,")
    picture = np.asarray(Image.open(tmp_path / "table.png").convert("L"))
    assert picture.shape[1] == 900
    assert (picture < 100).sum() > 1000
