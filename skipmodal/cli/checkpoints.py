"""`skipmodal info` and `skipmodal export`: what a checkpoint is, and a small copy of it to give away."""

from pathlib import Path
from typing import Annotated

import typer


def info(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(help="Folder of a checkpoint or of a training run.", show_default="the bundled one"),
    ] = None,
) -> None:
    """Print a checkpoint's card, its sizes, and its audio and image settings."""
    import torch

    from skipmodal.training.checkpoint import BUNDLED, load_checkpoint, read_card, resolve_checkpoint

    folder = resolve_checkpoint(checkpoint or BUNDLED)
    loaded = load_checkpoint(folder, torch.device("cpu"))
    if card := read_card(folder / "card.md"):
        typer.echo(card.rstrip() + "\n")
    blocks = {name: sum(p.numel() for p in block.parameters()) for name, block in loaded.model.named_children()}
    size = (folder / "model.safetensors").stat().st_size
    typer.echo(f"{sum(blocks.values()):,} parameters, {size / 1e6:.1f} MB of weights")
    for name, parameters in blocks.items():
        typer.echo(f"  {name:<16}{parameters:>12,}")
    typer.echo("audio: " + ", ".join(f"{key} {value}" for key, value in loaded.audio.model_dump().items()))
    typer.echo("image: " + ", ".join(f"{key} {value}" for key, value in loaded.image.model_dump().items()))


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint or of a training run.")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    card: Annotated[Path | None, typer.Option(help="A Markdown file to use as the model card.")] = None,
) -> None:
    """Write a checkpoint for synthesis alone: 16-bit weights and a card."""
    from skipmodal.errors import UserError
    from skipmodal.training.checkpoint import export_checkpoint, read_card

    if card and not card.is_file():
        raise UserError(f"--card {card}: no such file")
    export_checkpoint(checkpoint, out, read_card(card) if card else None)
    typer.echo(f"wrote {out}", err=True)
