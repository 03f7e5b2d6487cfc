"""Several processes that train one model together, as `torchrun` starts them: gradients are averaged in one call."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from skipmodal.errors import UserError


@dataclass(frozen=True)
class Processes:
    """This process's place among those that train together; alone by default."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that logs, validates and saves."""
        return self.rank == 0

    def average_gradients(self, model: nn.Module) -> None:
        """Every process ends with the mean gradient; a parameter that got none here counts as zero."""
        if self.count == 1:
            return
        parameters = [p for p in model.parameters() if p.requires_grad]
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        dist.all_reduce(flat)
        flat /= self.count
        for p, mean in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            assert p.grad is not None
            p.grad.copy_(mean.view_as(p))

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process."""
        if self.count == 1:
            return flag
        flags = torch.tensor([float(flag)], device=device)
        dist.all_reduce(flags)
        return bool(flags.item())


@contextmanager
def join(device: torch.device) -> Iterator[Processes]:
    """Joins the processes that torchrun started (NCCL between GPUs, gloo otherwise); alone without it."""
    if not dist.is_torchelastic_launched():
        yield Processes()
        return
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes that torchrun started cannot reach each other ({error})") from error
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def own_device(device: torch.device) -> torch.device:
    """The GPU of this process among those on its machine; other devices as they are."""
    if device.type != "cuda" or not dist.is_torchelastic_launched():
        return device
    own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(own)
    return own
