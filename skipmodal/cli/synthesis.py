"""The six synthesis commands: many inputs, one model load; results on stdout, messages on stderr."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from skipmodal import audio, image
from skipmodal.cli.files import Input, find_inputs, find_targets, read_stdin, read_text
from skipmodal.cli.options import BatchSize, Beam, Device, MaxCharacters, MaxSeconds, Model
from skipmodal.cli.output import tell
from skipmodal.errors import UserError
from skipmodal.files import to_json
from skipmodal.modality import Modality, modality_of
from skipmodal.progress import progress, say

if TYPE_CHECKING:
    from skipmodal.translate import Translation, Translator

NAMES: dict[str, Modality] = {"img": "image", "speech": "speech", "text": "text"}
SUFFIXES = {"speech": tuple(audio.FORMATS), "image": tuple(image.FORMATS)}
INPUT_HELP = {
    "image": "Pictures (JPEG, PNG, WebP and others), folders or patterns of them; - reads one from stdin.",
    "speech": "Audio files (wav, flac, ogg, mp3), folders or patterns of them; - reads one from stdin.",
    "text": "Sentences; - reads one a line from stdin.",
}
EXAMPLES = {
    "img2speech": "img2speech photo.jpg -o photo.wav --vtt",
    "img2text": "img2text photos/ --recursive --json",
    "text2speech": "text2speech --file story.txt -o story.flac --pause 0.5",
    "text2img": 'text2img "A dog runs on the beach." -o dog.png',
    "speech2text": "speech2text recordings/*.wav",
    "speech2img": "speech2img recording.wav -o picture.png",
}

Output = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Output file of one input; its suffix sets the format; - is stdout."
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--directory", "-d", help="Folder for many inputs: a file each, named after its input; sentences are numbered."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line for each input.")]
Recursive = Annotated[bool, typer.Option("--recursive", help="Also search subfolders; ** is allowed in patterns.")]
SkipExisting = Annotated[bool, typer.Option("--skip-existing", help="Skip inputs whose output file exists.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files in --directory.")]
Rate = Annotated[
    int | None,
    typer.Option(min=4000, max=192_000, help="Sample rate of the speech in Hz.", show_default="the model's"),
]
Vtt = Annotated[bool, typer.Option("--vtt", help="Also write the sentence as a WebVTT subtitle.")]
Srt = Annotated[bool, typer.Option("--srt", help="Also write the sentence as a SubRip subtitle.")]
TextGrid = Annotated[bool, typer.Option("--textgrid", help="Also write the times of the words, as a Praat TextGrid.")]
File = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Speak all of a text file, sentence by sentence, into one; - reads stdin."),
]
Pause = Annotated[float, typer.Option(min=0, max=60, help="Seconds of silence between the sentences of a text.")]


@dataclass(frozen=True)
class _Request:
    """Where results go, and in which form."""

    source: Modality
    target: Modality
    output: str | None = None
    directory: Path | None = None
    suffix: str = "txt"
    as_json: bool = False
    recursive: bool = False
    skip_existing: bool = False
    overwrite: bool = False
    rate: int | None = None
    beside: tuple[str, ...] = ()  # suffixes of the words' times
    file: str | None = None


def register(app: typer.Typer) -> None:
    """Adds img2speech, img2text, text2speech, text2img, speech2text and speech2img."""
    for a, source in NAMES.items():
        for b, target in NAMES.items():
            if source != target:
                help_text = f"Translate {source} to {target}.\n\nExample: skipmodal {EXAMPLES[f'{a}2{b}']}"
                app.command(f"{a}2{b}", help=help_text)(_command(source, target))


def _command(source: Modality, target: Modality) -> Callable[..., None]:
    inputs = Annotated[list[str], typer.Argument(help=INPUT_HELP[source], show_default=False)]
    sentences = Annotated[list[str] | None, typer.Argument(help=INPUT_HELP[source], show_default=False)]

    def to_speech(
        items: inputs, model: Model = None, output: Output = None, directory: Folder = None,  # type: ignore[valid-type]
        suffix: Annotated[Literal["wav", "flac", "ogg"], typer.Option(help="Format of files in --directory.")] = "wav",
        rate: Rate = None, vtt: Vtt = False, srt: Srt = False, textgrid: TextGrid = False,
        max_seconds: MaxSeconds = 10.0, beam: Beam = 4, as_json: Json = False, recursive: Recursive = False,
        skip_existing: SkipExisting = False, overwrite: Overwrite = False, device: Device = "auto",
        batch_size: BatchSize = 16,
    ) -> None:  # fmt: skip
        request = _Request(
            source, target, output, directory, suffix, as_json, recursive, skip_existing, overwrite, rate,
            _beside(vtt, srt, textgrid),
        )  # fmt: skip
        _run(items, request, model, device, batch_size, max_seconds=max_seconds, beam=beam)

    def text_to_speech(
        items: sentences = None, model: Model = None, output: Output = None, directory: Folder = None,  # type: ignore[valid-type]
        file: File = None, pause: Pause = 0.3,
        suffix: Annotated[Literal["wav", "flac", "ogg"], typer.Option(help="Format of files in --directory.")] = "wav",
        rate: Rate = None, vtt: Vtt = False, srt: Srt = False, textgrid: TextGrid = False,
        max_seconds: MaxSeconds = 10.0, as_json: Json = False, skip_existing: SkipExisting = False,
        overwrite: Overwrite = False, device: Device = "auto", batch_size: BatchSize = 16,
    ) -> None:  # fmt: skip
        if bool(items) == bool(file):
            raise typer.BadParameter("give either sentences or --file FILE")
        request = _Request(
            source, target, output, directory, suffix, as_json, False, skip_existing, overwrite, rate,
            _beside(vtt, srt, textgrid), file,
        )  # fmt: skip
        _run(items or [], request, model, device, batch_size, max_seconds=max_seconds, pause=pause)

    def to_image(
        items: inputs, model: Model = None, output: Output = None, directory: Folder = None,  # type: ignore[valid-type]
        suffix: Annotated[Literal["png", "jpg", "webp"], typer.Option(help="Format of files in --directory.")] = "png",
        as_json: Json = False, recursive: Recursive = False, skip_existing: SkipExisting = False,
        overwrite: Overwrite = False, device: Device = "auto", batch_size: BatchSize = 16,
    ) -> None:  # fmt: skip
        request = _Request(
            source, target, output, directory, suffix, as_json, recursive, skip_existing, overwrite
        )  # fmt: skip
        _run(items, request, model, device, batch_size)

    def to_text(
        items: inputs, model: Model = None, output: Output = None, directory: Folder = None,  # type: ignore[valid-type]
        max_characters: MaxCharacters = 200, beam: Beam = 4, as_json: Json = False, recursive: Recursive = False,
        skip_existing: SkipExisting = False, overwrite: Overwrite = False, device: Device = "auto",
        batch_size: BatchSize = 16,
    ) -> None:  # fmt: skip
        request = _Request(
            source, target, output, directory, "txt", as_json, recursive, skip_existing, overwrite
        )  # fmt: skip
        _run(items, request, model, device, batch_size, max_text=max_characters, beam=beam)

    def text_to_image(
        items: inputs, model: Model = None, output: Output = None, directory: Folder = None,  # type: ignore[valid-type]
        suffix: Annotated[Literal["png", "jpg", "webp"], typer.Option(help="Format of files in --directory.")] = "png",
        as_json: Json = False, skip_existing: SkipExisting = False, overwrite: Overwrite = False,
        device: Device = "auto", batch_size: BatchSize = 16,
    ) -> None:  # fmt: skip
        to_image(items, model, output, directory, suffix, as_json, False, skip_existing, overwrite, device, batch_size)

    if source == "text":
        return text_to_speech if target == "speech" else text_to_image
    commands: dict[Modality, Callable[..., None]] = {"speech": to_speech, "image": to_image, "text": to_text}
    return commands[target]


def _beside(vtt: bool, srt: bool, textgrid: bool) -> tuple[str, ...]:
    return tuple(suffix for suffix, on in ((".vtt", vtt), (".srt", srt), (".TextGrid", textgrid)) if on)


def _run(items: list[str], request: _Request, model: Path | None, device: str, batch_size: int, **limits: Any) -> None:
    """Checks everything that can be wrong before the model is loaded, then translates batch by batch."""
    inputs = [read_text(request.file)] if request.file else find_inputs(items, request.source, request.recursive)
    _check_output(inputs, request)
    targets = find_targets(inputs, request.source, request.output, request.directory, request.suffix)
    pairs = list(_wanted(inputs, targets, request))
    if not pairs:
        return

    from skipmodal.checkpoint import load_checkpoint
    from skipmodal.device import pick_device
    from skipmodal.sentences import sentences
    from skipmodal.translate import Translator
    from skipmodal.translation import join

    chosen = pick_device(device)
    if len(inputs) == 1:
        _check_there(pairs[0], request)
    translator = Translator(load_checkpoint(model, chosen), chosen, **limits)
    contents = (_content(each, request.source) for each, _ in pairs)
    parts = len(sentences(inputs[0].content)) if inputs[0].content is not None else len(pairs)
    failed = 0
    with progress(parts, unit="sentences" if request.file else "inputs") as advance:
        stream = translator.stream(contents, request.source, request.target, batch_size, advance)
        if request.file and request.output == "-" and parts > 1:
            _stream_speech((part for _, part in stream), translator, request)
            return
        for number, group in groupby(stream, lambda part: part[0]):
            each, path = pairs[number]
            found = [part for _, part in group]
            if error := next((part for part in found if isinstance(part, UserError)), None):
                failed += 1
                _leave_out(each.name, error, request, path)
                if len(inputs) == 1:
                    raise error
                tell(f"error: {error}")
                continue
            result = join([part for part in found if not isinstance(part, UserError)], translator.pause)
            _warn(each.name, result, request, translator)
            _deliver(each.name, result, request, path)
    if failed:
        raise UserError(f"{failed} of {len(inputs)} inputs could not be read; the others are done")


def _check_there(pair: tuple[Input, Path | None], request: _Request) -> None:
    """Raises UserError for the name of no file: before a model is loaded, which takes longest."""
    each, path = pair
    if request.source != "text" and each.name != "-" and not os.path.lexists(each.name):
        error = UserError(f"{each.name}: cannot be read ({os.strerror(errno.ENOENT)})")
        _leave_out(each.name, error, request, path)
        raise error


def _check_output(inputs: list[Input], request: _Request) -> None:
    output, directory, target = request.output, request.directory, request.target
    if output and directory:
        raise UserError("-o and -d exclude each other")
    if output and len(inputs) > 1:
        raise UserError(f"-o takes one input, there are {len(inputs)}; use -d FOLDER")
    if not output and not directory and target != "text":
        raise UserError("say where the result goes: -o FILE (or - for stdout) for one input, -d FOLDER for many")
    if output == "-" and request.as_json and target != "text":
        raise UserError("--json and -o - would both write to stdout")
    if output == "-" and request.beside:
        raise UserError("the words' times go into a file beside the speech, and -o - has none")
    if output and output != "-":
        path = Path(output)
        if target != "text" and path.suffix.lower() not in SUFFIXES[target]:
            raise UserError(f"{output}: unknown suffix for {target}; use {', '.join(SUFFIXES[target])}")
        if target == "text" and modality_of(output) not in ("text", None):
            raise UserError(f"{output}: is the name of a file of {modality_of(output)}; for a sentence use .txt")
        if not path.parent.is_dir():
            raise UserError(f"{output}: the folder {path.parent} does not exist")
        if (
            request.source != "text"
            and all(map(os.path.exists, (output, inputs[0].name)))
            and path.samefile(inputs[0].name)
        ):
            raise UserError(f"{output}: is the input; give another file")


def _wanted(inputs: list[Input], targets: list[Path | None], request: _Request) -> Iterator[tuple[Input, Path | None]]:
    """Inputs whose results are to be made. Raises UserError where that would replace files of --directory."""
    skipped = 0
    for each, path in zip(inputs, targets, strict=True):
        there = [file for file in _files(path, request) if file.exists()]
        if path in there and request.skip_existing:
            skipped += 1
            if request.as_json:
                say(to_json({"input": each.name, "output": str(path), "skipped": True}), sys.stdout)
        elif there and request.directory and not request.overwrite:
            raise UserError(f"{there[0]}: exists already; --skip-existing leaves it, --overwrite replaces it")
        else:
            yield each, path
    if skipped:
        tell(f"left out: {skipped} of {len(inputs)} inputs whose results exist already")


def _files(path: Path | None, request: _Request) -> list[Path]:
    return [path, *map(path.with_suffix, request.beside)] if path else []


def _content(each: Input, source: Modality) -> Path | bytes | str:
    if source == "text":
        return each.name if each.content is None else each.content
    return read_stdin() if each.name == "-" else Path(each.name)


def _warn(name: str, result: "Translation", request: _Request, translator: "Translator") -> None:
    if result.unfamiliar:
        tell(f"warning: {name}: is unlike the pictures that the model was trained on; what it says may be wrong")
    if result.capped:
        in_text = request.target == "text" or len(result.text or "") >= translator.max_text
        cap = f"{translator.max_text} characters" if in_text else f"{translator.max_seconds:g} s"
        tell(f"warning: {name}: the result was longer than {cap} and was cut there")


def _stream_speech(parts: "Iterator[Translation | UserError]", translator: "Translator", request: _Request) -> None:
    """A long text into a pipe: each sentence is written as soon as it is made."""
    rate = request.rate or translator.audio.sample_rate
    out = audio.WavStream(sys.stdout.buffer, rate)
    for number, part in enumerate(parts):
        if isinstance(part, UserError):
            raise part
        if number:
            out.write(audio.silence(translator.pause, rate))
        out.write(audio.resample(part.value, translator.audio.sample_rate, rate))  # type: ignore[arg-type]


def _deliver(name: str, result: "Translation", request: _Request, path: Path | None) -> None:
    replaced = [file for file in _files(path, request) if file.exists()]
    if path is not None:
        for file in _files(path, request):
            if file.suffix in request.beside:
                result.timed(file.suffix)  # or nothing is written at all
        _make_folder(path.parent)
        for file in _files(path, request):
            result.save(file, request.rate)
    elif request.target == "text":
        if not request.as_json:
            say(str(result.value), sys.stdout)
    elif request.target == "speech":
        rate = request.rate or result.sample_rate or 0
        wav = audio.resample(result.value, result.sample_rate or rate, rate)  # type: ignore[arg-type]
        audio.write_audio(sys.stdout.buffer, wav, rate)
    else:
        image.write_image(sys.stdout.buffer, result.value)  # type: ignore[arg-type]
    said = []
    if request.target == "speech" and result.text:
        said = [f'"{result.text}"'] + ([f"confidence {result.confidence:.2f}"] if result.confidence is not None else [])
    if path is not None:
        old = f" (in the place of an older {', '.join(file.name for file in replaced)})" if replaced else ""
        said.insert(0, f"wrote {', '.join(map(str, _files(path, request)))}{old}")
    if said:
        tell(": ".join([said[0], ", ".join(said[1:])]) if said[1:] else said[0])
    if request.as_json:
        say(to_json(_record(name, result, path)), sys.stdout)
    sys.stdout.flush()


def _record(name: str, result: "Translation", path: Path | None) -> dict[str, Any]:
    record: dict[str, Any] = {"input": name, "output": str(path) if path else None, "capped": result.capped}
    if result.text is not None:  # also the latent sentence behind speech
        record["text"] = result.text
    if result.confidence is not None:
        record |= {"confidence": round(result.confidence, 3), "unfamiliar": result.unfamiliar, "named": result.named}
    if result.sample_rate:
        record["seconds"] = round(result.seconds, 3)
    if result.words is not None:
        record["words"] = [{"word": word.text, "begin": word.begin, "end": word.end} for word in result.words]
    return record


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"-d {folder}: cannot be made ({error.strerror})") from error


def _leave_out(name: str, error: UserError, request: _Request, path: Path | None) -> None:
    """Keeps stdout a line for each input."""
    if request.as_json:
        say(to_json({"input": name, "error": str(error)}), sys.stdout)
    elif request.target == "text" and path is None:
        say("", sys.stdout)
    sys.stdout.flush()
