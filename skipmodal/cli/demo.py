"""`skipmodal demo`: the local web page."""

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from skipmodal.cli.options import Device, Model
from skipmodal.errors import UserError

MAX_STUDY_BYTES = 200_000_000


def demo(
    model: Model = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines reach the page.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the page is served.")] = 7860,
    max_mb: Annotated[int, typer.Option(min=1, max=1000, help="Larger files are refused.")] = 20,
    study: Annotated[Path | None, typer.Option(help="A page of `study make` to show beside it.")] = None,
    device: Device = "auto",
) -> None:
    """Translate on a local web page: drop a photo, type a sentence, or speak. Ctrl-C stops it.

    Example: skipmodal demo --port 8000
    """
    for package, what in (("gradio", "the page needs"), ("matplotlib", "its figures need")):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{what} {package}, which is not installed (pip install 'skipmodal[demo]')")
    shown = None if study is None else _read(study)

    import threading

    from skipmodal.checkpoint import load_checkpoint
    from skipmodal.demo.page import serve
    from skipmodal.device import pick_device
    from skipmodal.translate import Translator

    chosen = pick_device(device)
    translator = Translator(load_checkpoint(model, chosen), chosen)
    address = serve(translator, host=host, port=port, max_mb=max_mb, study=shown)
    typer.echo(f"skipmodal: open {address} (Ctrl-C stops it)", err=True)
    threading.Event().wait()


def _read(study: Path) -> str:
    try:
        if study.stat().st_size > MAX_STUDY_BYTES:
            raise UserError(f"--study {study}: larger than any study")
        return study.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--study {study}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
