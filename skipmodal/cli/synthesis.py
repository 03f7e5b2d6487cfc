"""The six synthesis commands: many inputs, one model load; results on stdout, messages on stderr."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from skipmodal import audio, image
from skipmodal.cli.options import BatchSize, Beam, Device, MaxCharacters, MaxSeconds, Model
from skipmodal.errors import UserError
from skipmodal.files import write_atomic

if TYPE_CHECKING:
    from torch import Tensor

    from skipmodal.translate import Translation, Translator

MAX_STDIN_BYTES = 200_000_000
NAMES = {"img": "image", "speech": "speech", "text": "text"}
SUFFIXES = {"speech": tuple(audio.FORMATS), "image": tuple(image.FORMATS)}
INPUT_HELP = {
    "image": "Pictures (any format Pillow reads); - reads one from stdin.",
    "speech": "Audio files (wav, flac, ogg, mp3); - reads one from stdin.",
    "text": "Sentences; - reads one a line from stdin.",
}

Output = Annotated[
    str | None, typer.Option("--output", "-o", metavar="FILE", help="For one input; - writes to stdout.")
]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--directory", "-d", help="For many inputs: one file each, named after its input; sentences by number."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout for each input.")]


def register(app: typer.Typer) -> None:
    """Adds img2speech, img2text, text2speech, text2img, speech2text and speech2img."""
    for a, source in NAMES.items():
        for b, target in NAMES.items():
            if source != target:
                help_text = f"Translate {source} to {target}."
                app.command(f"{a}2{b}", help=help_text)(_command(source, target))


def _command(source: str, target: str) -> Callable[..., None]:
    inputs = Annotated[list[str], typer.Argument(help=INPUT_HELP[source], show_default=False)]

    def to_speech(
        items: inputs, model: Model = None, output: Output = None, directory: Folder = None,  # type: ignore[valid-type]
        suffix: Annotated[Literal["wav", "flac", "ogg"], typer.Option(help="Format of files in --directory.")] = "wav",
        max_seconds: MaxSeconds = 10.0, beam: Beam = 4, as_json: Json = False, device: Device = "auto",
        batch_size: BatchSize = 16,
    ) -> None:  # fmt: skip
        limits = {"max_seconds": max_seconds, "beam": beam}
        _run(items, source, target, model, output, directory, suffix, as_json, device, batch_size, **limits)

    def to_image(
        items: inputs, model: Model = None, output: Output = None, directory: Folder = None,  # type: ignore[valid-type]
        suffix: Annotated[Literal["png", "jpg", "webp"], typer.Option(help="Format of files in --directory.")] = "png",
        as_json: Json = False, device: Device = "auto", batch_size: BatchSize = 16,
    ) -> None:  # fmt: skip
        _run(items, source, target, model, output, directory, suffix, as_json, device, batch_size)

    def to_text(
        items: inputs, model: Model = None, output: Output = None, directory: Folder = None,  # type: ignore[valid-type]
        max_characters: MaxCharacters = 200, beam: Beam = 4, as_json: Json = False, device: Device = "auto",
        batch_size: BatchSize = 16,
    ) -> None:  # fmt: skip
        limits = {"max_text": max_characters, "beam": beam}
        _run(items, source, target, model, output, directory, "txt", as_json, device, batch_size, **limits)

    commands: dict[str, Callable[..., None]] = {"speech": to_speech, "image": to_image, "text": to_text}
    return commands[target]


def _run(
    items: list[str], source: str, target: str, model: Path | None, output: str | None, directory: Path | None,
    suffix: str, as_json: bool, device: str, batch_size: int, **limits: Any,
) -> None:  # fmt: skip
    """Checks everything that can be wrong before the model is loaded, then translates batch by batch."""
    names = list(_names(items, source))
    _check_output(names, target, output, directory, as_json)
    targets = _targets(names, source, output, directory, suffix)

    from skipmodal.checkpoint import load_checkpoint
    from skipmodal.device import pick_device
    from skipmodal.translate import Translator

    chosen = pick_device(device)
    translator = Translator(load_checkpoint(model, chosen), chosen, **limits)
    if directory is not None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"-d {directory}: cannot be made ({error.strerror})") from error
    failed = 0
    pairs = list(zip(names, targets, strict=True))
    for start in range(0, len(pairs), batch_size):
        batch = pairs[start : start + batch_size]
        read = [_read(translator, name, source) for name, _ in batch]
        items_read = [item for item in read if not isinstance(item, UserError)]
        results = iter(translator.decode(translator.encode(items_read, source), target, source) if items_read else ())
        for (name, path), item in zip(batch, read, strict=True):
            if isinstance(item, UserError):
                failed += 1
                _leave_out(name, item, target, path, as_json)
                if len(names) == 1:
                    raise item
                _tell(f"error: {item}")
                continue
            result = next(results)
            if result.capped:
                in_text = target == "text" or len(result.text or "") >= translator.max_text
                cap = f"{translator.max_text} characters" if in_text else f"{translator.max_seconds:g} s"
                _tell(f"warning: {name}: the result was longer than {cap} and was cut there")
            _deliver(name, result, target, path, as_json, translator)
    if failed:
        raise UserError(f"{failed} of {len(names)} inputs could not be read; the others are done")


def _names(items: list[str], source: str) -> Iterator[str]:
    if items.count("-") > 1:
        raise UserError("- (stdin) is given more than once")
    for item in items:
        if item == "-" and source == "text":
            lines = _stdin().decode(errors="replace").splitlines()
            yield from (line for line in lines if line.strip())
        else:
            yield item


def _check_output(names: list[str], target: str, output: str | None, directory: Path | None, as_json: bool) -> None:
    if not names:
        raise UserError("stdin has no sentence")
    if output and directory:
        raise UserError("-o and -d exclude each other")
    if output and len(names) > 1:
        raise UserError(f"-o takes one input, there are {len(names)}; use -d FOLDER")
    if not output and not directory and target != "text":
        raise UserError("say where the result goes: -o FILE (or - for stdout) for one input, -d FOLDER for many")
    if output == "-" and as_json and target != "text":
        raise UserError("--json and -o - would both write to stdout")
    if output and output != "-":
        path = Path(output)
        if target != "text" and path.suffix.lower() not in SUFFIXES[target]:
            raise UserError(f"{output}: unknown suffix for {target}; use {', '.join(SUFFIXES[target])}")
        if not path.parent.is_dir():
            raise UserError(f"{output}: the folder {path.parent} does not exist")


def _targets(
    names: list[str], source: str, output: str | None, directory: Path | None, suffix: str
) -> list[Path | None]:
    """One path an input; None is stdout."""
    if directory is None:
        return [None if output in (None, "-") else Path(str(output))] * len(names)
    taken: set[str] = set()
    paths: list[Path | None] = []
    for i, name in enumerate(names, 1):
        stem = f"{i:04d}" if source == "text" else "stdin" if name == "-" else Path(name).stem
        unique, n = stem, 1
        while unique.lower() in taken:  # a/dog.jpg and b/dog.jpg
            n += 1
            unique = f"{stem}-{n}"
        taken.add(unique.lower())
        paths.append(directory / f"{unique}.{suffix}")
    return paths


def _read(translator: "Translator", name: str, source: str) -> "Tensor | UserError":
    try:
        return translator.read(_content(name, source), source)
    except UserError as error:
        return error


def _content(name: str, source: str) -> Path | bytes | str:
    if source == "text":
        return name
    if name != "-":
        return Path(name)
    return _stdin()


def _stdin() -> bytes:
    data = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)
    if len(data) > MAX_STDIN_BYTES:
        raise UserError(f"stdin: more than {MAX_STDIN_BYTES // 1_000_000} MB")
    return data


def _deliver(
    name: str, result: "Translation", target: str, path: Path | None, as_json: bool, translator: "Translator"
) -> None:
    record: dict[str, Any] = {"input": name, "output": str(path) if path else None, "capped": result.capped}
    if result.text is not None:  # also the latent sentence behind speech
        record["text"] = result.text
    if result.confidence is not None:
        record["confidence"] = round(result.confidence, 3)
    if isinstance(result.value, str):
        if path is not None:
            write_atomic(path, f"{result.value}\n".encode())
        elif not as_json:
            sys.stdout.write(f"{result.value}\n")
    elif target == "speech":
        record["seconds"] = round(len(result.value) / translator.audio.sample_rate, 3)
        audio.write_audio(path or sys.stdout.buffer, result.value, translator.audio.sample_rate)
    else:
        image.write_image(path or sys.stdout.buffer, result.value)
    if path is not None:
        _tell(f"wrote {path}")
    if as_json:
        sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def _leave_out(name: str, error: UserError, target: str, path: Path | None, as_json: bool) -> None:
    """Keeps stdout a line for each input."""
    if as_json:
        sys.stdout.write(json.dumps({"input": name, "error": str(error)}) + "\n")
    elif target == "text" and path is None:
        sys.stdout.write("\n")
    sys.stdout.flush()


def _tell(message: str) -> None:
    sys.stderr.write(f"skipmodal: {message}\n")
