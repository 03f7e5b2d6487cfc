"""Learning curves of a training run, from the events that it wrote for TensorBoard.

Only scalars are wanted. Every other record (pictures, sound) is skipped unread, and so is whatever a damaged or forged
file claims to be large; TensorBoard's own reader takes all of it into memory.
"""

import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from skipmodal.errors import UserError, require
from skipmodal.plots import Curves

MAX_RECORD = 4096  # bytes; a scalar takes some 60
MAX_POINTS = 1_000_000
MAX_CURVES = 64  # more than any model has losses
_TAG = re.compile(r"(train|val)/([a-z0-9_]{1,40})")
_OTHERS = {"norm", "lr", "skipped", "steps_per_second", "reward"}  # beside the losses


def read_curves(run: Path) -> Curves:
    """The losses that a run has logged, in the order of their first appearance; empty where it has logged none.

    A resumed run draws the steps after its checkpoint anew: the last word counts.
    Raises UserError where TensorBoard is not installed or a file can't be read.
    """
    files = sorted(path for path in (run / "tensorboard").glob("events.out.tfevents.*") if path.is_file())
    if not files:
        return {}
    require(f"{run}: its learning curves", tensorboard="tensorboard")
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    found: dict[tuple[str, str], dict[int, float]] = {}
    left = MAX_POINTS
    for path in files:
        try:
            with path.open("rb") as file:
                for record in _records(file, path.stat().st_size):
                    event = Event.FromString(record)
                    if event.session_log.status == SessionLog.START:
                        found = {
                            key: {step: value for step, value in points.items() if step < event.step}
                            for key, points in found.items()
                        }
                    for value in event.summary.value:
                        tag = _TAG.fullmatch(value.tag)
                        if not tag or tag[2] in _OTHERS or not math.isfinite(value.simple_value):
                            continue
                        key = tag[2], tag[1]
                        if left and (key in found or len(found) < MAX_CURVES):
                            found.setdefault(key, {})[event.step] = value.simple_value
                            left -= 1
        except DecodeError:
            continue  # the rest of a damaged file
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    curves: Curves = {}
    for (name, split), points in found.items():
        if points:
            steps = sorted(points)
            curves.setdefault(name, {})[split] = steps, [points[step] for step in steps]
    return curves


def _records(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The small records of a TFRecord file: length (uint64), its checksum, data, its checksum."""
    while len(head := file.read(12)) == 12:
        (length,) = struct.unpack("<Q", head[:8])
        if length > size - file.tell():
            return  # cut short, or still being written
        if length > MAX_RECORD:
            file.seek(length + 4, 1)
        else:
            yield file.read(length)
            file.seek(4, 1)
