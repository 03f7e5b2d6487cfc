"""Several processes that train one model together, as `torchrun` starts them: gradients are averaged in one call."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

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

    def share(self, step: nn.Module, device: torch.device) -> nn.Module:
        """The training step as all processes take it together, with the first one's weights and averaged gradients.

        Norms synchronise their statistics themselves (see `layers`), so buffers need not be sent around.
        """
        if self.count == 1:
            return step
        # A batch need not reach every parameter: one of A alone has no speech.
        return DistributedDataParallel(
            step, [device] if device.type == "cuda" else None, broadcast_buffers=False, find_unused_parameters=True
        )

    def check_alike(self, step: int, device: torch.device) -> None:
        """Raises UserError where the processes don't start at the same step."""
        if self.count == 1:
            return
        steps = [torch.zeros(1, device=device) for _ in range(self.count)]
        dist.all_gather(steps, torch.tensor([float(step)], device=device))
        if len({int(each) for each in steps}) > 1:
            raise UserError("the processes find different checkpoints to go on from; --run must be a shared folder")

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
    if not _launched():
        yield Processes()
        return
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"several processes cannot train together on {device.type}; use train.device=cpu")
    try:
        backend = "nccl" if device.type == "cuda" else "gloo"
        timeout = timedelta(hours=6)  # the others wait while the first validates
        store, rank, count = next(dist.rendezvous("env://", timeout=timedelta(minutes=5)))  # torchrun may be gone
        # torchrun keeps one store for all restarts (PyTorch 2.6 to 2.14), with the addresses of workers that are gone.
        # Agents on several machines count restarts apart: there TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 helps.
        if os.environ.get("GROUP_WORLD_SIZE") == "1":
            store = dist.PrefixStore(f"restart-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes that torchrun started cannot reach each other ({error})") from error
    stopped = False
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
        dist.barrier()  # none leaves while another still talks to it
    except UserError:
        with suppress(RuntimeError):  # the store is torchrun's, which may be gone
            store.set("stopped", "")  # for the others, whose connections to this one break now
        raise
    except RuntimeError as error:
        with suppress(RuntimeError):
            stopped = store.check(["stopped"])
        if not stopped:
            raise
        raise UserError("another of the processes that train together stopped; its message says why") from error
    finally:
        dist.destroy_process_group()


def own_device(device: torch.device) -> torch.device:
    """The GPU of this process among those on its machine; other devices as they are."""
    if device.type != "cuda" or not _launched():
        return device
    number, present = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= present:
        raise UserError(f"more processes than GPUs ({present}) on this machine; lower torchrun's --nproc-per-node")
    own = torch.device("cuda", number)
    torch.cuda.set_device(own)
    return own


def is_first() -> bool:
    """Whether this process speaks for all."""
    return not _launched() or os.environ.get("RANK", "0") == "0"


def _launched() -> bool:
    return dist.is_available() and dist.is_torchelastic_launched()
