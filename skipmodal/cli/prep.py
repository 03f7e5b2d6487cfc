"""`skipmodal prep`: sources -> prepared datasets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skipmodal.cli.output import tell
from skipmodal.errors import one_line
from skipmodal.image import MAX_VIEWS, EncoderName, ImageConfig
from skipmodal.tables import Table, print_table

if TYPE_CHECKING:
    from skipmodal.data.writer import PrepReport

app = typer.Typer(no_args_is_help=True, help="Turn a source into a prepared dataset.")

Source = Annotated[Path, typer.Argument(help="A public layout, or a .csv, .tsv or .jsonl manifest.")]
Out = Annotated[Path, typer.Argument(help="The prepared dataset, a new folder.")]
Layout = Annotated[str, typer.Option(help="auto, flickr8k, coco, ljspeech, librispeech or manifest.")]
Licence = Annotated[str, typer.Option(help="Licence of the data, for model cards.")]
Val = Annotated[float, typer.Option(help="Validation fraction, where the source names no split.")]
Test = Annotated[float, typer.Option(help="Test fraction, where the source names no split.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Stop after so many rows that can be read.")]
Jobs = Annotated[int | None, typer.Option(min=1, help="Decoding threads.", show_default="one a core")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Validate every row, write nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT once the new one is complete.")]


def _power_of_two(size: int) -> int:
    try:
        return ImageConfig.power_of_two(size)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


Size = Annotated[int, typer.Option(min=16, max=1024, callback=_power_of_two, help="Pixels a side, a power of two.")]
Speak = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ENGINE:VOICE",
        help="Speak rows without audio: flite:slt, espeak-ng:en-us, piper:X.onnx. Several voices take turns.",
    ),
]
Encoder = Annotated[
    EncoderName,
    typer.Option("--encoder", help="Cache the features of this frozen image encoder, or of all three (lites)."),
]
Views = Annotated[
    int,
    typer.Option(
        "--views",
        min=0,
        max=MAX_VIEWS,
        help="Cache so many more views of each training picture: parts of it, some mirrored.",
    ),
]
RegionsFile = Annotated[
    Path | None,
    typer.Option("--regions", help="Features of regions in place of an encoder's: a TSV, or a folder of .npz files."),
]
Device = Annotated[str, typer.Option(help="For spectrograms and features: auto, cpu, cuda, cuda:N or mps.")]
MaxSeconds = Annotated[float, typer.Option(min=0.5, help="Leave out what is longer, once trimmed.")]
MaxChars = Annotated[int, typer.Option(min=1, help="Leave out longer texts.")]
TrimDb = Annotated[float, typer.Option(min=1, help="Cut off both ends what is this many dB under the peak.")]
Power = Annotated[
    float,
    typer.Option(min=0.5, max=3, help="Exponent of the magnitudes before Griffin-Lim; the paper has 1.5."),
]


@app.command("image-text")
def image_text(
    source: Source,
    out: Out,
    layout: Layout = "auto",
    size: Size = 128,
    encoder: Encoder = "none",
    views: Views = 0,
    regions: RegionsFile = None,
    licence: Licence = "unknown",
    val: Val = 0.02,
    test: Test = 0.02,
    limit: Limit = None,
    jobs: Jobs = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
) -> None:
    """Pictures with captions: Flickr8k, COCO captions, or a manifest.

    A manifest has columns image and text, optionally id and split. Killed, it resumes by the same command.

    Example: skipmodal prep image-text flickr8k/ prepared/image-text --encoder efficientnet_lite2
    """
    from skipmodal.data.prepare import prepare_image_text

    report = prepare_image_text(
        source, out, layout=layout, image=ImageConfig(size=size, encoder=encoder), regions=regions, views=views,
        licence=licence, val=val, test=test, limit=limit, jobs=jobs, device=device, dry_run=dry_run,
        overwrite=overwrite,
    )  # fmt: skip
    _print(report, out, dry_run, val, test)


@app.command("text-speech")
def text_speech(
    source: Source,
    out: Out,
    layout: Layout = "auto",
    speak: Speak = None,
    max_seconds: MaxSeconds = 15.0,
    max_chars: MaxChars = 300,
    trim_db: TrimDb = 40.0,
    power: Power = 1.5,
    licence: Licence = "unknown",
    val: Val = 0.02,
    test: Test = 0.02,
    limit: Limit = None,
    jobs: Jobs = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
) -> None:
    """Recordings with transcripts: LJSpeech, LibriSpeech, or a manifest; or sentences to be spoken.

    A manifest has columns audio and text, optionally id and split. Sentences to be spoken need no audio; two columns
    without names are id and text. --speak leaves rows with audio as they are. Killed, it resumes by the same command.

    Example: skipmodal prep text-speech sentences.tsv prepared/text-speech --speak flite:slt --power 1
    """
    from skipmodal.audio import AudioConfig
    from skipmodal.data.prepare import prepare_text_speech

    report = prepare_text_speech(
        source, out, layout=layout, speak=speak or (), audio=AudioConfig(power=power), max_seconds=max_seconds,
        max_chars=max_chars, trim_db=trim_db, licence=licence, val=val, test=test, limit=limit, jobs=jobs,
        device=device, dry_run=dry_run, overwrite=overwrite,
    )  # fmt: skip
    _print(report, out, dry_run, val, test)


@app.command("toy")
def toy(
    out: Annotated[Path, typer.Argument(help="A new folder for both datasets and the photos.")],
    pictures: Annotated[int, typer.Option(min=10, help="Pictures, of all splits.")] = 4000,
    sentences: Annotated[int, typer.Option(min=10, help="Spoken sentences, of all splits.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same data.")] = 0,
    size: Size = 64,
) -> None:
    """Generated data to try everything with: coloured shapes, captions, and speech made of tones.

    Example: skipmodal prep toy prepared/toy
    """
    from skipmodal.data.toy import prepare_toy

    print(prepare_toy(out, pictures=pictures, sentences=sentences, seed=seed, size=size))
    typer.echo(f"wrote {out}", err=True)


def _print(report: "PrepReport", out: Path, dry_run: bool, val: float, test: float) -> None:
    """The summary on stdout; where it was written, and what training or eval will miss, on stderr."""
    splits = ", ".join(f"{split} {report.kept[split]:,}" for split in ("train", "val", "test"))
    rows = [("kept", f"{report.kept.total():,}", splits)]
    rows += [("dropped", f"{count:,}", reason) for reason, count in report.dropped.most_common()]
    if report.dropped_texts:
        rows.append(("captions dropped", f"{report.dropped_texts:,}", "unusable, of pictures that are kept"))
    if report.seconds:
        rows.append(("hours of audio", f"{report.seconds / 3600:.2f}", "before trimming" if dry_run else ""))
    if report.trimmed:
        median = f"median {report.trimmed_median:.2f} a recording"
        rows.append(("seconds of silence cut", f"{sum(report.trimmed):,.1f}", median))
    print_table(Table("", ("", "", ""), rows), right=(1,))
    for reason, examples in report.examples.items():
        print(f"{reason}, for example:", *map(one_line, examples), sep="\n  ")
    for split, asked, use in (("val", val, "train needs two items"), ("test", test, "eval measures")):
        if asked and not report.kept[split]:
            tell(
                f"warning: no item is in the split {split}, on which {use}; raise --{split}, or name it in the manifest"
            )
    typer.echo("dry run: nothing written" if dry_run else f"wrote {out}", err=True)
