"""`skipmodal eval`: a checkpoint's figures on a held-out split."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from skipmodal.cli.options import CHECKPOINT, BatchSize, Beam, Device, MaxCharacters, MaxSeconds
from skipmodal.errors import UserError


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help=CHECKPOINT)],
    task: Annotated[
        Literal["img2speech", "img2text", "speech2text", "text2speech", "vocabulary", "retrieval", "embedding", "toy"],
        typer.Option(help="What to measure."),
    ],
    data: Annotated[Path, typer.Option(help="A prepared dataset: image-text for pictures, else text-speech.")],
    then: Annotated[
        Path | None, typer.Option(help="Piecewise: the checkpoint writes a sentence, and this other one says it.")
    ] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Items of this split.")] = "test",
    transcriber: Annotated[
        str | None,
        typer.Option(
            help="Recogniser of speech outputs: faster-whisper:NAME, whisper:NAME, wav2vec2:NAME (or a folder), "
            "pocketsphinx, or command:PROGRAM."
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="vocabulary, retrieval, embedding, toy: a second prepared dataset, of the other kind."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json, .md, .html and items.jsonl.")] = None,
    plots: Annotated[
        int, typer.Option(min=0, max=1000, help="Write plots of this many items, and the learning curves, to --out.")
    ] = 0,
    published: Annotated[
        bool, typer.Option("--published", help="Also print the paper's own rows, each with whether it can be compared.")
    ] = False,
    cache: Annotated[Path | None, typer.Option(help="File that keeps transcripts for other evaluations.")] = None,
    wavs: Annotated[Path | None, typer.Option(help="Folder for the generated speech; OUT/wavs unless given.")] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="Use only the first items.")] = None,
    beam: Beam = 4,
    max_seconds: MaxSeconds = 15.0,
    max_characters: MaxCharacters = 300,
    batch_size: BatchSize = 32,
    device: Device = "auto",
) -> None:
    """Measure a checkpoint on a held-out split. --published also prints the paper's own figures.

    Example: skipmodal eval bundled --task img2text --data prepared/image-text --out report
    """
    from skipmodal.checkpoint import load_checkpoint
    from skipmodal.data.prepared import PreparedDataset
    from skipmodal.device import pick_device
    from skipmodal.evaluation.measure import PAIRED, check_packages, measure
    from skipmodal.evaluation.plots import check_plots, make_plots
    from skipmodal.evaluation.report import print_report, write_page, write_report
    from skipmodal.evaluation.vocabulary import check_recordings
    from skipmodal.metrics.transcribe import Transcriber
    from skipmodal.progress import progress
    from skipmodal.translate import Translator

    chosen = pick_device(device)
    if against and task not in PAIRED:
        raise UserError(f"--against: {task} takes one dataset")
    check_packages(task)
    hear = Transcriber(transcriber, cache) if transcriber else None
    limits = {"max_seconds": max_seconds, "max_text": max_characters, "beam": beam}
    loaded = load_checkpoint(checkpoint, chosen)
    translator = Translator(loaded, chosen, **limits)  # type: ignore[arg-type]
    if plots:
        check_plots(task, out, checkpoint, translator)
    speaker = Translator(load_checkpoint(then, chosen), chosen, **limits) if then else None  # type: ignore[arg-type]
    dataset = PreparedDataset(data, features=translator.image.encoder != "none")
    other = PreparedDataset(against, features=translator.image.encoder != "none") if against else None
    if task == "vocabulary" and other:
        check_recordings(other)
    makes_speech = task.endswith("speech") or task == "vocabulary"
    wavs = wavs or (out / "wavs" if out and makes_speech else None)
    photos = out / "photos" if out and task.startswith("img") else None
    for folder in filter(None, (out, wavs, photos)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be made ({error.strerror or error})") from error
    total = sum(len(each.indices(split)[:limit]) for each in (dataset, task != "vocabulary" and other) if each)
    total *= 2 if task == "toy" else 1
    with progress(total) as advance:
        report = measure(
            loaded, translator, task, dataset, other, transcriber=hear, wavs=wavs, then=speaker,
            photos=photos, split=split, limit=limit, batch_size=batch_size, advance=advance,
        )  # fmt: skip
    if out is not None:
        write_report(report, out, published)
        shown = min(plots, limit or plots)
        write_page(report, out, make_plots(
            translator, dataset, task, shown, checkpoint, split=split, then=speaker, against=other
        ) if plots else [], published)  # fmt: skip
        print(f"wrote {out}", file=sys.stderr)
    print_report(report, published)
