"""`skipmodal train`: a recipe -> a trained checkpoint."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from skipmodal.config import load_recipe


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe such as 'paper'.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="For example optim.lr=0.001 train.max_steps=500."),
    ] = None,
    run: Annotated[Path, typer.Option("--run", help="Folder of the run: checkpoints and TensorBoard events.")] = Path(
        "runs/skipmodal"
    ),
    resume: Annotated[
        Literal["no", "auto"],
        typer.Option("--resume", help="auto: go on from the run's latest checkpoint, if it has one."),
    ] = "no",
    init: Annotated[
        Path | None, typer.Option("--init", help="A checkpoint whose weights a new run starts from, to fine-tune it.")
    ] = None,
) -> None:
    """Train a model. Ctrl-C saves a checkpoint and stops; --resume auto goes on."""
    chosen = load_recipe(recipe, overrides)  # everything that can be wrong in it is found before torch is imported
    from skipmodal.training import distributed, loop

    latest = loop.train(chosen, run, resume=resume == "auto", init=init)
    if distributed.is_first():
        typer.echo(latest)
