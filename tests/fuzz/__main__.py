"""python -m tests.fuzz [--inputs 100000] [--seed 0] [--out runs/fuzz] [READER ...]: resumes, and ends with a table."""

import sys

import torch

from tests.fuzz.readers import READERS
from tests.fuzz.run import BAD, Result, fuzz, table
from tests.long_runs import go_on, parser


def tell(name: str, result: Result) -> None:
    """What is bad."""
    if result.outcome in BAD:
        print(f"{name} {result.number}: {result.outcome}: {result.detail.strip().splitlines()[-1]}", flush=True)


def main() -> None:
    arguments = parser("tests.fuzz", __doc__, "reader", READERS)
    arguments.add_argument("--inputs", type=int, default=100_000, help="of all readers together")
    arguments.add_argument("--only", type=int, help="the number of one input of one reader, to be seen again")
    given = arguments.parse_args()
    torch.set_num_threads(1)  # and none is started before a fork
    names = given.names or list(READERS)
    if unknown := set(names) - set(READERS):
        arguments.error(f"no such reader: {', '.join(unknown)}")
    given.out.mkdir(parents=True, exist_ok=True)
    if given.only is not None:
        for result in fuzz(names[0], given.seed, range(given.only, given.only + 1), given.out):
            print(result.outcome, result.detail)
        return
    found: dict[str, list[Result]] = {}
    for name in names:
        found[name] = go_on(
            given.out / f"{name}-{given.seed}.jsonl", Result,
            lambda done, name=name: fuzz(name, given.seed, range(done, given.inputs // len(names)), given.out),
            lambda result, name=name: tell(name, result),
        )  # fmt: skip
    print(table(found))
    sys.exit(any(result.outcome in BAD for some in found.values() for result in some))


main()
