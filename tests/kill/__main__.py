"""python -m tests.kill [--points 100] [--seed 0] [--out runs/kill] [CASE ...]: goes on where it was cut."""

import os
import sys
from collections import Counter

import torch

from skipmodal.training import loop  # noqa: F401
from tests.kill.cases import CASES
from tests.kill.run import Result, kill_points
from tests.long_runs import go_on, parser


def tell(name: str, result: Result) -> None:
    """What went wrong."""
    if result.outcome != "same":
        print(f"{name} {result.number}: {result.outcome}: {result.detail}", flush=True)


def main() -> None:
    arguments = parser("tests.kill", __doc__, "case", CASES)
    arguments.add_argument("--points", type=int, default=100, help="of each case")
    given = arguments.parse_args()
    names = given.names or list(CASES)
    if unknown := set(names) - set(CASES):
        arguments.error(f"no such case: {', '.join(unknown)}")
    torch.set_num_threads(1)  # and none is started before a fork
    os.environ["OMP_NUM_THREADS"] = "1"
    found: dict[str, list[Result]] = {}
    for name in names:
        folder = given.out.absolute() / name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        found[name] = go_on(
            folder / f"{given.seed}.jsonl", Result,
            lambda done, name=name, folder=folder: kill_points(name, given.seed, range(done, given.points), folder),
            lambda result, name=name: tell(name, result),
        )  # fmt: skip
        print(f"{name}: {dict(Counter(result.outcome for result in found[name]))}", flush=True)
    sys.exit(any(result.outcome != "same" for some in found.values() for result in some))


main()
