"""`skipmodal study`: a page on which people judge what systems say about photos, and what their answers add up to."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skipmodal.cli.output import tell
from skipmodal.errors import UserError
from skipmodal.tables import Table, print_table

if TYPE_CHECKING:
    from skipmodal.study.score import StudyReport

app = typer.Typer(no_args_is_help=True, help="Run a blind listening study, and score its answers.")


@app.command("make")
def make(
    photos: Annotated[Path, typer.Argument(help="Folder of photos.")],
    system: Annotated[
        list[str],
        typer.Option("--system", metavar="NAME=FOLDER", help="Its recordings, named like the photos; 2 to 6 times."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The page.")] = Path("study.html"),
    title: Annotated[str, typer.Option(help="What the judges read above it.")] = "Listening study",
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same page.")] = 0,
) -> None:
    """Write a page for the judges, which needs no network, and beside it study.key.json, which stays with you.

    Give the page to every judge; each sends back answers-JUDGE.json. All clips get the same loudness.

    Example: skipmodal study make photos/ --system ours=spoken --system piecewise=spoken-piecewise -o study.html
    """
    from skipmodal.study.page import make_study

    key, unknown = make_study(photos, _systems(system), output, title=title, seed=seed)
    if unknown:
        tell(f"warning: {len(unknown)} audio files belong to no photo of {photos} and were left out, as {unknown[0]}")
    typer.echo(f"wrote {output} for the judges, and {key}, which they must not see", err=True)


@app.command("score")
def score(
    key: Annotated[Path, typer.Argument(help="The study.key.json of the page.")],
    answers: Annotated[list[Path], typer.Argument(metavar="ANSWERS...", help="The judges' answers-JUDGE.json.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="All figures as JSON.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap and the permutations.")] = 0,
) -> None:
    """Percentages, deviations, intervals and tests from the judges' answers, beside the paper's own.

    Example: skipmodal study score study.key.json answers-*.json -o study.json
    """
    import json
    from dataclasses import asdict

    from skipmodal.files import write_atomic
    from skipmodal.study import score as study

    known = study.read_key(key)
    report = study.score(known, study.read_answers(answers, known), seed)
    _print(report)
    if output is not None:
        write_atomic(output, (json.dumps(asdict(report), indent=1) + "\n").encode())
        typer.echo(f"wrote {output}", err=True)


def _systems(options: list[str]) -> dict[str, Path]:
    """NAME=FOLDER options; UserError for another form, and for a name that is given twice."""
    systems: dict[str, Path] = {}
    for option in options:
        name, _, folder = option.partition("=")
        if not name or not folder or not name.isprintable() or len(name) > 40:
            raise UserError(f"--system {option!r}: expected NAME=FOLDER, with a name of at most 40 characters")
        if name.lower() in map(str.lower, systems):
            raise UserError(f"--system {name}: given twice")
        systems[name] = Path(folder)
    return systems


def _print(report: "StudyReport") -> None:
    """One table a question, on stdout."""
    from skipmodal.study.score import PAPER, QUESTIONS

    print(f"{report.title}: {len(report.judges)} judges, {report.items} photos")
    for question in report.questions:
        rows = []
        for row in question.systems:
            deviations = ("-" if sd is None else f"{sd:.1f}" for sd in (row.sd_judges, row.sd_items))
            interval = "{:.1f} to {:.1f}".format(*row.interval)
            rows.append((row.system, str(row.chosen), f"{row.percent:.1f}", *deviations, interval))
        heads = ("system", "picked", "%", "sd of judges", "sd of photos", "95 % interval")
        print_table(Table(f"{question.question}: {QUESTIONS[question.question]}", heads, rows), right=range(1, 6))
        print(
            f"against equal choice: chi-square {question.chi_square:.2f}, p {question.p_chi_square:.2g} were all "
            f"judgements independent; p {question.p_judges:.2g} by judges, {question.p_items:.2g} by photos",
            f"{question.best} against {question.second}: exact binomial p {question.p_best:.2g}",
            "the paper's own system, on its own data: {:.1f} % (sd {:.1f})\n".format(*PAPER[question.question]),
            sep="\n",
        )
