"""python -m tests.kill [--points 100] [--seed 0] [--out runs/kill] [CASE ...]: goes on where it was cut."""

import argparse
import json
import os
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import torch

from skipmodal.training import loop  # noqa: F401
from tests.kill.cases import CASES
from tests.kill.run import Result, kill_points


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of: {', '.join(CASES)}; default: all")
    parser.add_argument("--points", type=int, default=100, help="of each case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/kill"), help="where the results are kept")
    given = parser.parse_args()
    names = given.cases or list(CASES)
    if unknown := set(names) - set(CASES):
        parser.error(f"no such case: {', '.join(unknown)}")
    torch.set_num_threads(1)  # and none is started before a fork
    os.environ["OMP_NUM_THREADS"] = "1"
    found: dict[str, list[Result]] = {}
    for name in names:
        folder = given.out.absolute() / name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"{given.seed}.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        some = found[name] = [Result(**json.loads(line)) for line in lines]
        with log.open("a") as file:
            for result in kill_points(name, given.seed, range(len(some), given.points), folder):
                some.append(result)
                file.write(json.dumps(asdict(result)) + "\n")
                file.flush()
                if result.outcome != "same":
                    print(f"{name} {result.number}: {result.outcome}: {result.detail}", flush=True)
        print(f"{name}: {dict(Counter(result.outcome for result in some))}", flush=True)
    sys.exit(any(result.outcome != "same" for some in found.values() for result in some))


main()
