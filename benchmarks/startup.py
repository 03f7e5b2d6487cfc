"""From process start to written wav, against `import torch` alone, and what a further photo costs in a batch.

    python benchmarks/startup.py PHOTO [PHOTO ...] -m CHECKPOINT

Prints medians in seconds of wall clock, and their ratio. Give several photos for the second figure.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def measure(*command: str, repeats: int = 5) -> float:
    """Median seconds of a whole process, after one to warm the file cache."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("-m", "--model", required=True)
    arguments = parser.parse_args()
    photos = [str(path) for path in arguments.photos]
    with tempfile.TemporaryDirectory() as folder:
        speak = [sys.executable, "-m", "skipmodal", "img2speech", "-m", arguments.model, "-d", folder, "--overwrite"]
        torch = measure(sys.executable, "-c", "import torch")
        one = measure(*speak, photos[0])
        print(f"import torch {torch:.2f} s; photo to wav {one:.2f} s: {one / torch:.2f} times")
        if len(photos) > 1:
            many = measure(*speak, *photos, repeats=3)
            print(f"{len(photos)} photos {many:.2f} s: {(many - one) / (len(photos) - 1):.2f} s for each further one")


if __name__ == "__main__":
    main()
