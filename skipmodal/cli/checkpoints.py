"""`skipmodal info`, `calibrate` and `export`: what a checkpoint is, how sure it may be, a small copy to give away."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from skipmodal.cli.options import CHECKPOINT, Device
from skipmodal.cli.output import printable
from skipmodal.errors import UserError


def info(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(help=CHECKPOINT, show_default="the bundled one"),
    ] = None,
) -> None:
    """Print a checkpoint's card (data, licences, figures), its words and parameters, and its settings.

    Example: skipmodal info runs/mine
    """
    import torch

    from skipmodal.checkpoint import BUNDLED, CARD, load_checkpoint, read_card, resolve_checkpoint

    folder = resolve_checkpoint(checkpoint or BUNDLED)
    loaded = load_checkpoint(folder, torch.device("cpu"))
    card = read_card(folder / CARD) or "no card: its data, licences and figures are not known"
    typer.echo(card.rstrip() + "\n")
    model, recipe = loaded.model, loaded.recipe
    blocks = {name: sum(p.numel() for p in block.parameters()) for name, block in model.named_children()}
    size = (folder / "model.safetensors").stat().st_size
    typer.echo(f"{folder}: of kind {recipe.model.kind}, {sum(blocks.values()):,} parameters, {size / 1e6:.1f} MB")
    for name, parameters in blocks.items():
        typer.echo(f"  {name:<16}{parameters:>12,}")
    if "text" in model.writes:
        words = f"{len(model.tokenizer.words):,} words whole, " if model.tokenizer.words else ""
        typer.echo(f"writes: {words}66 characters")
    if "text" in model.writes and "image" in model.reads:
        sure = "calibrated on pictures" if loaded.confidence else "not calibrated (skipmodal calibrate)"
        typer.echo(f"confidence: {sure}")
    typer.echo(printable(f"data: {recipe.data.image_text}, {recipe.data.text_speech}"))
    typer.echo("audio: " + ", ".join(f"{key} {value}" for key, value in loaded.audio.model_dump().items()))
    typer.echo("image: " + ", ".join(f"{key} {value}" for key, value in loaded.image.model_dump().items()))


def calibrate(
    checkpoint: Annotated[Path, typer.Argument(help=CHECKPOINT)],
    data: Annotated[Path, typer.Option(help="The prepared image-text dataset whose train split it was trained on.")],
    split: Annotated[Literal["val", "test"], typer.Option(help="The split to fit on.")] = "val",
    limit: Annotated[int | None, typer.Option(min=40, help="Use only the first items.")] = None,
    plot: Annotated[Path | None, typer.Option(help="File for the reliability plot, a PNG.")] = None,
    device: Device = "auto",
) -> None:
    """Fit the confidence of a checkpoint's captions, and store it in the checkpoint.

    Each sentence then has a confidence: the expected share of its content words that people's captions have, too. It is
    lower for pictures unlike those of the train split, and the least familiar get a warning. Pictures are fitted as
    they are, and once more darkened, cropped, turned, blurred or otherwise altered.

    Example: skipmodal calibrate runs/mine --data prepared/image-text --plot reliability.png
    """
    from skipmodal.checkpoint import add_confidence, identity, load_checkpoint
    from skipmodal.data.prepared import PreparedDataset
    from skipmodal.device import pick_device
    from skipmodal.evaluation import calibration
    from skipmodal.files import write_atomic
    from skipmodal.plots import check_matplotlib, draw_reliability, to_png
    from skipmodal.progress import progress
    from skipmodal.translate import Translator

    if plot:
        check_matplotlib()
        if not plot.parent.is_dir():
            raise UserError(f"--plot {plot}: the folder {plot.parent} does not exist")
    chosen, weights = pick_device(device), identity(checkpoint)
    translator = Translator(load_checkpoint(checkpoint, chosen), chosen)
    dataset = PreparedDataset(data, features=translator.image.encoder != "none")
    with progress(len(dataset.indices(split)[:limit])) as advance:
        found = calibration.calibrate(translator, dataset, split=split, limit=limit, advance=advance)
    if identity(checkpoint) != weights:  # a training writes there
        raise UserError(f"{checkpoint}: was trained on meanwhile; calibrate again when that is over")
    kinds = {"as they are": found.plain, "altered": found.altered}
    for kind, held in kinds.items():
        typer.echo(f"{held.items} pictures that were not fitted, {kind}: calibration error {held.error:.3f}")
        for expected, share in zip(held.expected, held.found, strict=True):
            typer.echo(f"  confidence {expected:.2f}  found {share:.2f}")
    typer.echo(f"wrote {add_confidence(checkpoint, found.confidence, found.prototypes)}", err=True)
    if plot:
        title = f"{found.plain.items} photos, as they are and altered"
        curves = {f"{kind}: error {held.error:.3f}": (held.expected, held.found) for kind, held in kinds.items()}
        write_atomic(plot, to_png(draw_reliability(curves, title)))
        typer.echo(f"wrote {plot}", err=True)


def export(
    checkpoint: Annotated[Path, typer.Argument(help=CHECKPOINT)],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    card: Annotated[Path | None, typer.Option(help="A Markdown file to use as the model card.")] = None,
) -> None:
    """Write a checkpoint for synthesis alone: 16-bit weights and a card.

    Example: skipmodal export runs/mine my-model
    """
    from skipmodal.checkpoint import export_checkpoint, read_card

    if card and not card.is_file():
        raise UserError(f"--card {card}: no such file")
    export_checkpoint(checkpoint, out, read_card(card) if card else None)
    typer.echo(f"wrote {out}", err=True)


def average(
    checkpoints: Annotated[list[Path], typer.Argument(help="Two or more checkpoints of one model.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="A new folder.")],
) -> None:
    """Average the weights of several checkpoints; the card is that of the last.

    Example: skipmodal average runs/base/latest runs/critical/latest -o runs/averaged
    """
    from skipmodal.average import average_checkpoints

    average_checkpoints(checkpoints, out)
    typer.echo(f"wrote {out}", err=True)
