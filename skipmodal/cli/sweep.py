"""`skipmodal sweep`: many trainings with several seeds, and one table of what they come to."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skipmodal.errors import UserError, first_few, require

if TYPE_CHECKING:
    from skipmodal.sweep.runner import Result


def sweep(
    file: Annotated[str, typer.Argument(help="A sweep file, or the name of a shipped sweep such as 'toy_paper'.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="For all systems, for example train.max_steps=500."),
    ] = None,
    run: Annotated[Path, typer.Option("--run", help="Folder of the runs and of the table.")] = Path("runs/sweep"),
    jobs: Annotated[int, typer.Option(min=1, max=1024, help="Runs at the same time; 1 trains in this process.")] = 1,
    ray: Annotated[
        str | None, typer.Option(metavar="local|ADDRESS", help="Run on Ray: on this machine, or on a cluster.")
    ] = None,
) -> None:
    """Train and evaluate a list of systems with several seeds, and write a table beside the paper's rows.

    The same command again resumes: finished runs are skipped, interrupted ones go on.

    Example: skipmodal sweep toy_paper --run runs/ablations --jobs 2
    """
    if ray is not None and jobs > 1:
        raise UserError("--jobs and --ray: give one of them")
    from skipmodal.plots import check_matplotlib
    from skipmodal.sweep import executors
    from skipmodal.sweep.plan import load_plan
    from skipmodal.sweep.runner import read_result
    from skipmodal.sweep.table import write_tables

    check_matplotlib()
    plan = load_plan(file, run, overrides or [])
    if len({each.seed for each in plan.runs}) > 1:
        require("intervals over seeds", scipy="scipy")
    results, changed = {}, []
    for each in plan.runs:
        try:
            if (result := read_result(each)) is not None:
                results[each] = result
        except UserError as error:
            changed.append(str(error))
    if changed:
        raise UserError("; ".join(first_few(changed, 3)))
    total = len(plan.runs)
    if results:
        typer.echo(f"{len(results)} of {total} runs are done already", err=True)
    left = [each for each in plan.runs if each not in results]
    if ray is not None:
        found = executors.on_ray(left, ray)
    else:
        found = executors.in_processes(left, jobs) if jobs > 1 else executors.in_this_process(left)
    failed = 0
    try:
        with closing(found):  # stops what is at work, too
            for each, result in found:
                results[each] = result
                failed += result.error is not None
                typer.echo(f"{len(results)} of {total}: {each.name}: {_told(result)}", err=True)
    except KeyboardInterrupt:
        if results:
            write_tables(plan, results, run)
        typer.echo("stopped; the same command goes on from here", err=True)
        raise
    typer.echo(write_tables(plan, results, run), nl=False)
    if failed:
        raise UserError(f"{failed} of {total} runs failed; the same command tries them again")


def _told(result: "Result") -> str:
    if result.error is not None:
        return f"failed: {result.error}"
    figures = (f"{name} {'-' if value is None else f'{value:.1f}'}" for name, value in result.figures.items())
    return f"{', '.join(figures)} ({result.cpu_seconds / 60:.1f} CPU minutes)"
