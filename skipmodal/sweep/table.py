"""What a sweep has found, as one table: Markdown, CSV, and a plot; the paper's rows stand beside."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skipmodal import tables
from skipmodal.evaluation.published import TABLES
from skipmodal.files import write_atomic
from skipmodal.plots import draw_intervals, to_png
from skipmodal.sweep.plan import Plan, Run
from skipmodal.sweep.runner import Result
from skipmodal.tables import Table

LEVEL = 0.95  # of the intervals
MINUTES = "CPU minutes"


@dataclass(frozen=True)
class Cell:
    """A figure over the seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        return float(np.mean(self.values)) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Of the sample (n - 1); None of fewer than two seeds."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's, of the mean, were the figures of the seeds normally distributed."""
        if self.mean is None or self.deviation is None:
            return None
        from scipy.stats import t

        count = len(self.values)
        reach = float(t.ppf(0.5 + LEVEL / 2, count - 1)) * self.deviation / math.sqrt(count)
        return self.mean - reach, self.mean + reach

    def __str__(self) -> str:
        if self.mean is None:
            return "-"
        return f"{self.mean:.1f}" if self.deviation is None else f"{self.mean:.1f} ± {self.deviation:.1f}"


@dataclass(frozen=True)
class Row:
    """A system."""

    name: str
    seeds: int  # that are done
    cells: dict[str, Cell]  # by column, the CPU minutes last
    published: dict[str, str]  # the paper's figures by column, as printed


def tabulate(plan: Plan, results: Mapping[Run, Result]) -> list[Row]:
    """One row a system, over those of its seeds that are done."""
    rows = []
    for system in plan.systems:
        done = [result for run, result in results.items() if run.system == system.name and result.error is None]
        cells = {
            column: Cell(tuple(v for result in done if (v := result.figures.get(column)) is not None))
            for column in plan.columns
        }
        cells[MINUTES] = Cell(tuple(result.cpu_seconds / 60 for result in done))
        published: dict[str, str] = {}
        for name, wanted in system.paper.items():
            (figures,) = (row[1:] for row in TABLES[name].rows if row[0] == wanted)
            heads = (f"{name}: {' '.join(column)}" for column in TABLES[name].columns)
            published |= dict(zip(heads, figures, strict=True))
        rows.append(Row(system.name, len(done), cells, published))
    return rows


def markdown(plan: Plan, rows: Sequence[Row]) -> str:
    """Means and deviations; then the paper's figures of those systems that it has."""
    columns, published = [*plan.columns, MINUTES], _published(rows)
    cells = [[row.name, str(row.seeds), *(str(row.cells[column]) for column in columns)] for row in rows]
    seeds = ", ".join(map(str, plan.seeds))
    text = tables.markdown(Table("", ["system", "seeds", *columns], cells)) + "\n\n"
    text += f"Mean ± standard deviation over those of the seeds {seeds} that are done.\n"
    if published:
        cells = [[row.name, *(row.published.get(head, "") for head in published)] for row in rows if row.published]
        text += "\n" + tables.markdown(Table("", ["system", *published], cells)) + "\n\n"
        text += "The paper's own figures, of its own data: not comparable.\n"
    return text


def as_csv(plan: Plan, rows: Sequence[Row]) -> str:
    """The same with the ends of the intervals, unrounded."""
    published = _published(rows)
    kinds = ("", " sd", f" {LEVEL:.0%} low", f" {LEVEL:.0%} high")
    columns = [*plan.columns, MINUTES]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["system", "seeds", *(column + kind for column in columns for kind in kinds), *published])
    for row in rows:
        figures: list[float | None] = []
        for column in columns:
            cell = row.cells[column]
            figures += [cell.mean, cell.deviation, *(cell.interval or (None, None))]
        shown = ("" if value is None else f"{value:.6g}" for value in figures)
        writer.writerow([row.name, row.seeds, *shown, *(row.published.get(head, "") for head in published)])
    return out.getvalue()


def write_tables(plan: Plan, results: Mapping[Run, Result], folder: Path) -> str:
    """table.md, table.csv and table.png; returns the Markdown. Raises UserError where they can't be written."""
    rows = tabulate(plan, results)
    text = markdown(plan, rows)
    write_atomic(folder / "table.md", text.encode())
    write_atomic(folder / "table.csv", as_csv(plan, rows).encode())
    panels = {
        column: [(row.cells[column].values, row.cells[column].interval) for row in rows] for column in plan.columns
    }
    title = f"{plan.name}: each seed, the mean, and its {LEVEL:.0%} interval"
    write_atomic(folder / "table.png", to_png(draw_intervals(panels, [row.name for row in rows], title)))
    return text


def _published(rows: Sequence[Row]) -> list[str]:
    """The paper's columns that some system has, in order."""
    return list(dict.fromkeys(head for row in rows for head in row.published))
