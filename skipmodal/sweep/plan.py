"""The sweep file: what is trained, with which seeds, and what is measured; all of it checked before anything trains."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from skipmodal.config import MAX_LISTED, DataConfig, Recipe, Section, describe
from skipmodal.data.prepared import PreparedDataset
from skipmodal.errors import UserError, first_few
from skipmodal.evaluation.measure import FIGURES, check_packages
from skipmodal.evaluation.published import TABLES
from skipmodal.evaluation.tasks import TASKS, direction
from skipmodal.metrics.transcribe import Transcriber
from skipmodal.plain_yaml import read_yaml
from skipmodal.recipe import load_recipe, recipes_folder
from skipmodal.systems import system_class

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Name = Annotated[str, Field(pattern=r"^[ -~]{1,40}$")]


class Measure(Section):
    """One evaluation of every trained run, on the run's own datasets, as `skipmodal eval` does it."""

    task: Literal["toy", "embedding", "img2speech", "img2text", "speech2text", "text2speech"]
    pair: Literal["image", "speech"] | None = Field(
        default=None, description="embedding: texts and these alone; none: all three modalities"
    )
    split: Literal["train", "val", "test"] = "test"
    limit: Annotated[int | None, Field(ge=2, description="the first items only")] = None
    max_seconds: Annotated[float, Field(ge=0.1, le=60, description="length cap of the speech")] = 15.0
    transcriber: str | None = Field(default=None, description="as that of `skipmodal eval`, to hear speech with")
    figures: Annotated[tuple[str, ...], Field(min_length=1)]

    def column(self, figure: str) -> str:
        """The head of a figure's column: with its direction, where it doesn't name one itself."""
        if self.pair is not None:
            return f"{figure} ({self.pair} or text)"
        return f"{self.task} {figure}" if self.task in TASKS else figure

    @property
    def needs(self) -> tuple[set[str], set[str]]:
        """What a system has to read and to write for it."""
        if self.task == "toy":
            return {"image", "text", "speech"}, {"text", "speech"}
        if self.task == "embedding":
            return {"text", *((self.pair,) if self.pair else ("image", "speech"))}, set()
        source, target = direction(self.task)
        return {source}, {target}

    def datasets(self, data: DataConfig) -> list[Path]:
        """Of a run's two datasets those that are measured on."""
        kind = TASKS.get(self.task, {"image": "image-text", "speech": "text-speech", None: None}[self.pair])
        return [path for of, path in data.datasets().items() if kind in (of, None)]


class Trained(Section):
    """What is trained: a recipe and what is changed in it."""

    recipe: str
    overrides: tuple[str, ...] = Field(default=(), alias="set")


class System(Trained):
    """One row of the table."""

    name: Name
    then: Trained | None = Field(default=None, description="Piecewise: a second model, which says what this one writes")
    paper: dict[str, str] = Field(default={}, description="tables of the paper, and the row that this system is there")

    @property
    def parts(self) -> tuple[Trained, ...]:
        return (self,) if self.then is None else (self, self.then)


class SweepFile(Section):
    """A sweep as its file states it."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    overrides: tuple[str, ...] = Field(default=(), alias="set", description="for all systems, before their own")
    cpus: Annotated[int, Field(ge=1, le=1024, description="threads of a run, which Ray keeps for it")] = 1
    gpus: Annotated[float, Field(ge=0, le=64, description="that Ray keeps for a run; 0.5: two runs share one")] = 0.0
    evaluate: Annotated[tuple[Measure, ...], Field(min_length=1)]
    systems: Annotated[tuple[System, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Run:
    """A system with a seed, and where it is trained."""

    system: str
    seed: int
    recipe_name: str
    overrides: tuple[str, ...]
    recipe: Recipe
    then: Recipe | None
    measures: tuple[Measure, ...]
    folder: Path
    cpus: int
    gpus: float

    @property
    def name(self) -> str:
        return f"{self.system}, seed {self.seed}"

    @property
    def models(self) -> tuple[tuple[Recipe, Path], ...]:
        """What is trained, and where: one model, or two."""
        first = (self.recipe, self.folder)
        return (first,) if self.then is None else (first, (self.then, self.folder / "then"))


@dataclass(frozen=True)
class Plan:
    """A checked sweep: rows, columns and runs of its table."""

    name: str
    seeds: tuple[int, ...]
    systems: tuple[System, ...]
    columns: tuple[str, ...]
    runs: tuple[Run, ...]


def load_plan(file: str, folder: Path, overrides: Sequence[str] = ()) -> Plan:
    """Reads a sweep: a YAML file, or the name of a shipped one (`toy_paper`); its runs will lie in `folder`.

    `overrides` are for all systems, after what the file sets. Raises UserError that lists every problem at once: in
    the file, in a recipe, in the data, or in what is to be measured.
    """
    path = _find(file)
    tree = read_yaml(path, "sweep")
    try:
        sweep = SweepFile.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"sweep {file}: {describe(error, SweepFile)}") from error
    problems: list[str] = []
    runs = []
    for seed in sweep.seeds:  # outside, so that a sweep that is cut short has compared all systems with fewer seeds
        for system in sweep.systems:
            try:
                recipe, *then = (
                    load_recipe(part.recipe, [*sweep.overrides, *part.overrides, *overrides, f"train.seed={seed}"])
                    for part in system.parts
                )
            except UserError as error:
                problems.append(f"{system.name}: {error}")
                continue
            changes = (*sweep.overrides, *system.overrides, *overrides)
            runs.append(
                Run(
                    system.name, seed, system.recipe, changes, recipe, then[0] if then else None, sweep.evaluate,
                    folder / f"{_slug(system.name)}-s{seed}", sweep.cpus, sweep.gpus,
                )
            )  # fmt: skip
    columns = [measure.column(figure) for measure in sweep.evaluate for figure in measure.figures]
    problems += [f"seed {seed}: given twice" for seed in _twice([str(seed) for seed in sweep.seeds])]
    problems += [f"systems: {name!r} is given twice" for name in _twice([system.name for system in sweep.systems])]
    alike = _twice([_slug(name).lower() for name in dict.fromkeys(system.name for system in sweep.systems)])
    problems += [f"systems: two names make the same folder, {slug}" for slug in alike]
    problems += [f"evaluate: {column!r} is given twice" for column in _twice(columns)]
    problems += [problem for measure in sweep.evaluate for problem in _check_measure(measure)]
    problems += [problem for system in sweep.systems for problem in _check_paper(system)]
    problems += [
        f"{system.name}: has `then`, so only img2speech can be measured, not {measure.task}"
        for system in sweep.systems
        for measure in sweep.evaluate
        if system.then is not None and measure.task != "img2speech"
    ]
    problems += [problem for run in runs if run.seed == sweep.seeds[0] for problem in _check_abilities(run)]
    problems += [
        f"{system.name}: train.seed is what `seeds` is for"
        for system in sweep.systems
        for change in (*sweep.overrides, *overrides, *(change for part in system.parts for change in part.overrides))
        if change.startswith("train.seed=")
    ]
    recipes = [recipe for run in runs for recipe, _ in run.models]
    used = {(path, kind) for recipe in recipes for kind, path in recipe.data.datasets().items()}
    problems += [problem for path, kind in sorted(used) for problem in _check_data(path, kind)]
    if problems:
        raise UserError(f"sweep {file}: {'; '.join(first_few(list(dict.fromkeys(problems)), MAX_LISTED))}")
    return Plan(path.stem, sweep.seeds, sweep.systems, tuple(columns), tuple(runs))


def _find(file: str) -> Path:
    path = Path(file)
    if path.suffix in (".yaml", ".yml") or os.path.isfile(path):
        return path
    shipped = recipes_folder() / "sweeps"
    path = shipped / f"{file}.yaml"
    if not os.path.isfile(path):
        names = ", ".join(sorted(each.stem for each in shipped.glob("*.yaml")))
        raise UserError(f"sweep {file!r}: no such file, and not one of the shipped: {names}")
    return path


def _slug(name: str) -> str:
    """A system's name as that of a folder."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.") or "-"


def _twice(values: Sequence[str]) -> list[str]:
    return [value for value, count in Counter(values).items() if count > 1]


def _check_measure(measure: Measure) -> Iterator[str]:
    task = measure.task
    try:
        check_packages(task)
    except UserError as error:
        yield f"evaluate: {error}"
    for figure in set(measure.figures) - set(FIGURES[task]):
        yield f"evaluate: {task} has no figure {figure!r}; it has {', '.join(FIGURES[task])}"
    if measure.pair is not None and task != "embedding":
        yield f"evaluate: {task} has no use for a `pair`"
    if task in TASKS and task.endswith("speech"):
        if measure.transcriber is None:
            yield f"evaluate: {task} needs a `transcriber` to be heard"
        else:
            try:
                Transcriber(measure.transcriber)
            except UserError as error:
                yield f"evaluate: {error}"
    elif measure.transcriber is not None:
        yield f"evaluate: {task} has no use for a `transcriber`"


def _check_abilities(run: Run) -> Iterator[str]:
    """Whether what is trained can do what is measured."""
    for measure in run.measures:
        reads, writes = measure.needs
        wanted = [(run.recipe, reads, writes)]
        if run.then is not None:  # one writes a sentence, the other says it
            wanted = [(run.recipe, reads, {"text"}), (run.then, {"text"}, writes)]
        for recipe, source, target in wanted:
            kind = recipe.model.kind
            system = system_class(kind)
            if not (source <= system.reads and target <= system.writes):
                able = f"reads {' and '.join(sorted(system.reads))} and writes {' and '.join(sorted(system.writes))}"
                yield f"{run.system}: {measure.task} can't be measured: a model of kind {kind} {able}"


def _check_paper(system: System) -> Iterator[str]:
    for name, row in system.paper.items():
        if name not in TABLES:
            yield f"{system.name}: the paper has no {name!r}; there are: {'; '.join(TABLES)}"
        elif row not in (rows := [each[0] for each in TABLES[name].rows]):
            yield f"{system.name}: {name} has no row {row!r}; it has: {'; '.join(rows)}"


def _check_data(path: Path, kind: str) -> Iterator[str]:
    try:
        found = PreparedDataset(path, features=False).meta.kind
    except UserError as error:
        yield str(error)
        return
    if kind != found:
        yield f"{path}: is a {found} dataset where {kind} is needed"
