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
    """Print a checkpoint's card: data and licences, limits, measured results, sizes, audio settings."""
    import torch

    from skipmodal.training.checkpoint import BUNDLED, load_checkpoint, resolve_checkpoint

    folder = resolve_checkpoint(checkpoint or BUNDLED)
    loaded = load_checkpoint(folder, torch.device("cpu"))
    card = folder / "card.md"
    if card.is_file():
        typer.echo(card.read_text(encoding="utf-8").rstrip() + "\n")
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
    from skipmodal.training.checkpoint import export_checkpoint

    try:
        text = card.read_text(encoding="utf-8") if card else None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--card {card}: cannot be read ({error})") from error
    export_checkpoint(checkpoint, out, text)
    typer.echo(f"wrote {out}", err=True)
