"""Seconds beside another job: photos described, and steps of a toy training, as threads wait now and as they would.

    python benchmarks/busy.py PHOTO [PHOTO ...] --toy FOLDER

FOLDER is what `skipmodal prep toy` made. The load is one process a core that does nothing but count.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STEPS = 40
WAYS = {  # how OpenMP waits, and how many threads a small model trains on; none: as it is
    "as it is": ({}, ()),
    "spinning": ({"OMP_WAIT_POLICY": "ACTIVE"}, (f"train.threads={os.cpu_count()}",)),
}


@contextmanager
def load(processes: int) -> Iterator[None]:
    """As many processes that keep a core busy."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def measure(environment: dict[str, str], *command: str) -> float:
    """Seconds of a whole command."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "skipmodal", *command], check=True, capture_output=True, env=kept | environment
    )
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+")
    parser.add_argument("--toy", type=Path, required=True)
    arguments = parser.parse_args()
    data = [f"data.image_text={arguments.toy / 'image-text'}", f"data.text_speech={arguments.toy / 'text-speech'}"]
    for busy in (0, os.cpu_count() or 1):
        for name, (environment, settings) in WAYS.items():
            with load(busy), tempfile.TemporaryDirectory() as folder:
                photos = measure(environment, "img2text", *arguments.photos)
                training = measure(
                    environment, "train", "toy", *data, f"train.max_steps={STEPS}", *settings, "--run", f"{folder}/run"
                )
            what = f"{len(arguments.photos)} photos {photos:.1f} s, {STEPS} steps {training:.1f} s"
            print(f"{busy} other jobs, {name}: {what}", flush=True)


if __name__ == "__main__":
    main()
