"""The one device setting: auto, cpu, cuda, cuda:N or mps."""

from typing import TYPE_CHECKING

from skipmodal.errors import UserError

if TYPE_CHECKING:
    import torch


def pick_device(name: str = "auto") -> "torch.device":
    """The device of that name; `auto` prefers CUDA, then MPS, then the CPU. Raises UserError if it isn't there."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device {name!r} is unknown; use auto, cpu, cuda, cuda:N or mps") from error
    present = {
        "cpu": device.index in (None, 0),
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(device.type, False):
        raise UserError(f"device {name!r} is not available here; use auto")
    return device
