"""`skipmodal eval`: a checkpoint's figures on a held-out split."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from skipmodal.errors import UserError


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint or of a training run.")],
    task: Annotated[
        Literal["img2speech", "img2text", "speech2text", "text2speech", "retrieval"], typer.Option(help="What.")
    ],
    data: Annotated[Path, typer.Option(help="A prepared dataset: image-text for pictures, else text-speech.")],
    then: Annotated[
        Path | None, typer.Option(help="Piecewise: the checkpoint writes a sentence, and this other one says it.")
    ] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Items of this split.")] = "test",
    transcriber: Annotated[
        str | None,
        typer.Option(help="faster-whisper:NAME_OR_FOLDER, pocketsphinx or command:PROGRAM, to hear speech with."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json, report.md and items.jsonl.")] = None,
    cache: Annotated[Path | None, typer.Option(help="File that keeps transcripts by what was heard.")] = None,
    wavs: Annotated[Path | None, typer.Option(help="Folder for the speech that was made.")] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="The first items only.")] = None,
    beam: Annotated[int, typer.Option(min=1, max=16, help="Hypotheses kept while a sentence is decoded.")] = 4,
    max_seconds: Annotated[float, typer.Option(min=0.1, max=60, help="Length cap of the speech.")] = 15.0,
    max_characters: Annotated[int, typer.Option(min=1, max=2000, help="Length cap of the text.")] = 300,
    batch_size: Annotated[int, typer.Option(min=1, help="Inputs decoded together.")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """Measure a checkpoint on a held-out split, beside the paper's own figures, which are of other data."""
    from skipmodal.data.pipeline import progress
    from skipmodal.data.prepared import PreparedDataset
    from skipmodal.device import pick_device
    from skipmodal.evaluation import tasks
    from skipmodal.evaluation.report import print_report, write_report
    from skipmodal.evaluation.retrieval import evaluate_retrieval
    from skipmodal.evaluation.transcribe import Transcriber
    from skipmodal.training.checkpoint import load_checkpoint
    from skipmodal.translate import Translator

    chosen = pick_device(device)
    hear = Transcriber(transcriber, cache) if transcriber else None
    for folder in filter(None, (out, wavs)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be made ({error.strerror or error})") from error
    limits = {"max_seconds": max_seconds, "max_text": max_characters, "beam": beam}
    translator = Translator(load_checkpoint(checkpoint, chosen), chosen, **limits)  # type: ignore[arg-type]
    speaker = Translator(load_checkpoint(then, chosen), chosen, **limits) if then else None  # type: ignore[arg-type]
    dataset = PreparedDataset(data, features=translator.image.encoder != "none")
    with progress(len(dataset.indices(split)[:limit]), 0) as advance:
        if task == "retrieval":
            report = evaluate_retrieval(
                translator, dataset, split=split, limit=limit, batch_size=batch_size, advance=advance
            )
        else:
            report = tasks.evaluate(
                translator, dataset, task, split=split, limit=limit, transcriber=hear, batch_size=batch_size,
                wavs=wavs, then=speaker, advance=advance,
            )  # fmt: skip
    print_report(report)
    if out is not None:
        write_report(report, out)
        print(f"wrote {out}", file=sys.stderr)
