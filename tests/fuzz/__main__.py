"""python -m tests.fuzz [--inputs 100000] [--seed 0] [--out runs/fuzz] [READER ...]: resumes, and ends with a table."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from tests.fuzz.readers import READERS
from tests.fuzz.run import BAD, Result, fuzz, table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of: {', '.join(READERS)}; default: all")
    parser.add_argument("--inputs", type=int, default=100_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="results, and the inputs that failed")
    parser.add_argument("--only", type=int, help="the number of one input of one reader, to be seen again")
    given = parser.parse_args()
    torch.set_num_threads(1)  # and none is started before a fork
    names = given.readers or list(READERS)
    if unknown := set(names) - set(READERS):
        parser.error(f"no such reader: {', '.join(unknown)}")
    given.out.mkdir(parents=True, exist_ok=True)
    if given.only is not None:
        for result in fuzz(names[0], given.seed, range(given.only, given.only + 1), given.out):
            print(result.outcome, result.detail)
        return
    found: dict[str, list[Result]] = {}
    for name in names:
        log = given.out / f"{name}-{given.seed}.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        some = found[name] = [Result(**json.loads(line)) for line in lines]
        with log.open("a") as file:
            for result in fuzz(name, given.seed, range(len(some), given.inputs // len(names)), given.out):
                some.append(result)
                file.write(json.dumps(asdict(result)) + "\n")
                if result.outcome in BAD:
                    print(
                        f"{name} {result.number}: {result.outcome}: {result.detail.strip().splitlines()[-1]}",
                        flush=True,
                    )
    print(table(found))
    sys.exit(any(result.outcome in BAD for some in found.values() for result in some))


main()
