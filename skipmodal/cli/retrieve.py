"""`skipmodal retrieve`: index pictures, sentences and recordings once, then ask by any of them."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from skipmodal.cli.options import Device, Model
from skipmodal.cli.output import printable, tell
from skipmodal.errors import UserError
from skipmodal.files import to_json, write_atomic
from skipmodal.tables import Table, print_table

if TYPE_CHECKING:
    from skipmodal.retrieval.contact_sheet import Query
    from skipmodal.retrieval.index import Hit, Index

app = typer.Typer(no_args_is_help=True, help="Search pictures, sentences and recordings by an example of any of them.")
LISTED = 10  # files that were left out


class Modality(StrEnum):
    """What can be asked for."""

    image = "image"
    text = "text"
    speech = "speech"


@app.command()
def build(
    out: Annotated[Path, typer.Argument(help="The index, a new folder.")],
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...",
            help="Prepared datasets, or folders of pictures, recordings and .txt files with a sentence a line.",
        ),
    ],
    model: Model = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Also the folders in folders.")] = False,
    split: Annotated[
        Literal["train", "val", "test"] | None, typer.Option(help="Of prepared datasets only this.", show_default="all")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Items encoded together.")] = 32,
    device: Device = "auto",
) -> None:
    """Index prepared datasets and folders; what a query is compared with.

    Example: skipmodal retrieve build my-index photos/ prepared/text-speech
    """
    from skipmodal.checkpoint import identity, load_checkpoint
    from skipmodal.device import pick_device
    from skipmodal.retrieval.index import build_index
    from skipmodal.translate import Translator

    left_out = 0

    def skip(reason: str) -> None:
        nonlocal left_out
        left_out += 1
        if left_out <= LISTED:
            tell(f"left out: {reason}")

    chosen = pick_device(device)
    translator = Translator(load_checkpoint(model, chosen), chosen)
    meta = build_index(
        out, sources, translator, identity(model), split=split, recursive=recursive, batch_size=batch_size, skip=skip
    )
    if left_out > LISTED:
        tell(f"left out: {left_out} in all")
    counts = ", ".join(f"{modality} {count}" for modality, count in meta.counts.items())
    print(f"wrote {out} ({counts})", file=sys.stderr)


@app.command()
def query(
    index: Annotated[Path, typer.Argument(help="What `build` made.")],
    queries: Annotated[
        list[str], typer.Argument(metavar="QUERY...", help="Pictures, recordings (known by suffix), or sentences.")
    ],
    model: Model = None,
    kind: Annotated[
        Literal["image", "text", "speech"] | None, typer.Option("--as", help="Read every QUERY as this modality.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Results of each modality.")] = 3,
    modality: Annotated[
        list[Modality] | None, typer.Option(help="Search only this modality; may be repeated.", show_default="all")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line for each item.")] = False,
    sheet: Annotated[Path | None, typer.Option(help="A contact sheet: an HTML page that needs nothing else.")] = None,
    device: Device = "auto",
) -> None:
    """The nearest items of each modality by the cosine of u, nearest first.

    Example: skipmodal retrieve query my-index photo.jpg "A dog runs on the beach." --sheet sheet.html
    """
    import numpy as np

    from skipmodal.checkpoint import identity, load_checkpoint
    from skipmodal.device import pick_device
    from skipmodal.retrieval.contact_sheet import Sheet
    from skipmodal.retrieval.index import ORDER, Index
    from skipmodal.translate import Translator

    if sheet is not None and not sheet.parent.is_dir():
        raise UserError(f"--sheet {sheet}: the folder {sheet.parent} does not exist")
    asked = [_query(given, kind) for given in queries]
    opened = Index(index)
    wanted = [name for name in ORDER if name in (modality or opened.present)]
    if missing := [name for name in wanted if name not in opened.present]:
        raise UserError(f"{index}: has no {missing[0]}; it has {', '.join(opened.present)}")
    opened.check(identity(model))
    chosen = pick_device(device)
    translator = Translator(load_checkpoint(model, chosen), chosen)
    u = [translator.embed([each.item], each.modality).float().cpu().numpy() for each in asked]
    found = {name: opened.search(np.concatenate(u), name, k) for name in wanted}
    page = Sheet(opened)
    for number, each in enumerate(asked):
        hits = [(name, found[name][number]) for name in wanted]
        _print(each, [hit for _, some in hits for hit in some], opened, as_json)
        if sheet is not None:
            page.add(each, hits)
    if sheet is not None:
        write_atomic(sheet, page.html())
        for problem in page.problems[:LISTED]:
            tell(f"warning: {problem}")
        print(f"wrote {sheet}", file=sys.stderr)


def _query(given: str, kind: str | None) -> "Query":
    """What is asked for, its kind by the file's suffix; what is no file is a sentence."""
    from skipmodal.modality import modality_of
    from skipmodal.retrieval.contact_sheet import Query

    by_name = modality_of(given)
    if kind:
        return Query(kind, given)  # type: ignore[arg-type]
    if not os.path.isfile(given):
        if by_name:
            raise UserError(f"{given}: no such file; --as text takes it as a sentence")
        return Query("text", given)
    if by_name in ("image", "speech"):
        return Query(by_name, given)
    raise UserError(
        f"{given}: is known neither as a picture nor as a recording by its suffix; say --as image, text or speech"
    )


def _print(asked: "Query", hits: "list[Hit]", index: "Index", as_json: bool) -> None:
    if as_json:
        for hit in hits:
            record: dict[str, Any] = {"query": asked.given, "rank": hit.rank, "cosine": round(hit.score, 6)}
            record |= hit.item.model_dump(exclude_none=True) | {"source": index.meta.sources[hit.item.source].path}
            print(to_json(record))
        return
    rows = [
        (
            hit.item.modality, str(hit.rank), f"{hit.score:.3f}", printable(hit.item.text or ""),
            printable(index.where(hit.item)),
        )
        for hit in hits
    ]  # fmt: skip
    table = Table(printable(asked.given), ("modality", "rank", "cosine", "text", "where"), rows)
    print_table(table, right=(1, 2))
