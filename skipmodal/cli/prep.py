"""`skipmodal prep`: sources -> prepared datasets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from skipmodal.data.writer import PrepReport

app = typer.Typer(no_args_is_help=True, help="Turn a source into a prepared dataset.")

Source = Annotated[Path, typer.Argument(help="A public layout's folder, or a .csv, .tsv or .jsonl manifest.")]
Out = Annotated[Path, typer.Argument(help="The prepared dataset, a new folder.")]
Layout = Annotated[str, typer.Option(help="auto, flickr8k, coco, ljspeech or manifest.")]
Licence = Annotated[str, typer.Option(help="Licence of the data; ends up in model cards.")]
Val = Annotated[float, typer.Option(help="Fraction for validation, where the source names no split.")]
Test = Annotated[float, typer.Option(help="Fraction for testing, where the source names no split.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Use the first rows only.")]
Jobs = Annotated[int | None, typer.Option(min=1, help="Threads that decode; default: one a core.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Validate every row, write nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT once the new one is complete.")]


@app.command("image-text")
def image_text(
    source: Source,
    out: Out,
    layout: Layout = "auto",
    size: Annotated[int, typer.Option(min=16, max=1024, help="Pixels a side.")] = 128,
    licence: Licence = "unknown",
    val: Val = 0.02,
    test: Test = 0.02,
    limit: Limit = None,
    jobs: Jobs = None,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
) -> None:
    """Pictures with captions: Flickr8k, COCO captions, or a manifest. A killed run resumes by the same command."""
    from skipmodal.data.prepare import prepare_image_text
    from skipmodal.image import ImageConfig

    report = prepare_image_text(
        source, out, layout=layout, image=ImageConfig(size=size), licence=licence, val=val, test=test,
        limit=limit, jobs=jobs, dry_run=dry_run, overwrite=overwrite,
    )  # fmt: skip
    _print(report, out, dry_run)


@app.command("text-speech")
def text_speech(
    source: Source,
    out: Out,
    layout: Layout = "auto",
    speak: Annotated[str | None, typer.Option(metavar="ENGINE:VOICE", help="Make the speech: flite:slt, espeak-ng:en-us, piper:VOICE.onnx.")] = None,
    sample_rate: Annotated[int, typer.Option(min=4000, max=96000, help="Hz.")] = 16000,
    max_seconds: Annotated[float, typer.Option(min=0.5, help="Longer recordings are left out.")] = 15.0,
    max_chars: Annotated[int, typer.Option(min=1, help="Longer texts are left out.")] = 300,
    trim_db: Annotated[float, typer.Option(min=1, help="Silence at both ends: this far under the peak.")] = 40.0,
    licence: Licence = "unknown",
    val: Val = 0.02,
    test: Test = 0.02,
    limit: Limit = None,
    jobs: Jobs = None,
    device: Annotated[str, typer.Option(help="Where spectrograms are computed: auto, cpu, cuda or mps.")] = "auto",
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
) -> None:
    """Recordings with transcripts: LJSpeech, or a manifest. A killed run resumes by the same command."""
    from skipmodal.audio import AudioConfig
    from skipmodal.data.prepare import SpeechLimits, prepare_text_speech

    report = prepare_text_speech(
        source, out, layout=layout, audio=AudioConfig(sample_rate=sample_rate), speaker=speak,
        limits=SpeechLimits(max_seconds=max_seconds, max_chars=max_chars, trim_db=trim_db), licence=licence,
        val=val, test=test, limit=limit, jobs=jobs, device=device, dry_run=dry_run, overwrite=overwrite,
    )  # fmt: skip
    _print(report, out, dry_run)


def _print(report: "PrepReport", out: Path, dry_run: bool) -> None:
    print(report)
