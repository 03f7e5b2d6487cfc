"""Command lines of the runs that take longer than a test may, and their logs, from which they go on."""

import argparse
import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

Kind = TypeVar("Kind")


def parser(module: str, doc: str | None, what: str, known: Collection[str]) -> argparse.ArgumentParser:
    """Of `python -m module`, with names of `what` (one of `known`, default: all), --seed and --out."""
    made = argparse.ArgumentParser(prog=f"python -m {module}", description=doc)
    made.add_argument("names", nargs="*", metavar=what.upper(), help=f"of: {', '.join(known)}; default: all")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", type=Path, default=Path("runs") / module.split(".")[-1], help="where results are kept")
    return made


def go_on(
    log: Path, kind: Callable[..., Kind], run: Callable[[int], Iterable[Kind]], tell: Callable[[Kind], None]
) -> list[Kind]:
    """The results in a log, one line of JSON each, and those that `run`, told how many there are, adds to it."""
    lines = log.read_text().splitlines() if log.exists() else []
    results = [kind(**json.loads(line)) for line in lines]
    with log.open("a") as file:
        for result in run(len(results)):
            results.append(result)
            file.write(json.dumps(asdict(result)) + "\n")  # type: ignore[call-overload]
            file.flush()
            tell(result)
    return results
