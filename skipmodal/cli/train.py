"""`skipmodal train`: a recipe -> a trained checkpoint."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from skipmodal.recipe import load_recipe, recipe_names


def _recipes(incomplete: str) -> list[str]:
    return [name for name in recipe_names() if name.startswith(incomplete)]


def train(
    recipe: Annotated[
        str,
        typer.Argument(help="A recipe file, or the name of a shipped recipe such as 'paper'.", autocompletion=_recipes),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="For example optim.lr=0.001 train.max_steps=500."),
    ] = None,
    run: Annotated[Path, typer.Option("--run", help="Folder of the run: checkpoints and TensorBoard events.")] = Path(
        "runs/skipmodal"
    ),
    resume: Annotated[
        Literal["no", "auto"],
        typer.Option("--resume", help="auto: continue from the run's latest checkpoint, if it has one."),
    ] = "no",
    init: Annotated[
        Path | None,
        typer.Option("--init", help="A checkpoint whose weights and model.* a new run starts from."),
    ] = None,
) -> None:
    """Train a model. Ctrl-C saves a checkpoint and stops; --resume auto continues with the run's own settings.

    Example: skipmodal train base --init bundled data.image_text=prepared/image-text --run runs/mine
    """
    if init is not None and resume != "no":
        raise typer.BadParameter("--init starts a new run and --resume goes on with one; give one of them")
    chosen = load_recipe(recipe, overrides)  # everything that can be wrong in it is found before torch is imported
    from skipmodal.training import distributed, loop
    from skipmodal.training.settings import recipe_to_fine_tune, recipe_to_resume

    changed: list[str] = []
    if init is not None:
        chosen, changed = recipe_to_fine_tune(recipe, overrides or [], init)
    elif resume == "auto":
        chosen, changed = recipe_to_resume(recipe, overrides or [], run)
    if changed and distributed.is_first():
        typer.echo(f"as in {init or run}, not in the recipe {recipe}: {', '.join(changed)}", err=True)
    latest = loop.train(chosen, run, resume=resume == "auto", init=init)
    if distributed.is_first():
        typer.echo(latest)
