import pytest
import torch

from skipmodal.device import pick_device
from skipmodal.errors import UserError


@pytest.fixture
def machine(monkeypatch):
    """A machine with as many CUDA devices, and MPS or not."""

    def machine(cuda=0, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return machine


def test_auto_works_here():
    device = pick_device()
    assert torch.zeros(2, device=device).sum().item() == 0


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(0, False, "cpu"), (1, False, "cuda"), (0, True, "mps"), (2, True, "cuda")]
)
def test_auto_prefers_cuda_then_mps_then_the_cpu(machine, cuda, mps, expected):
    machine(cuda, mps)
    assert pick_device("auto") == torch.device(expected)


def test_named_devices(machine):
    machine(cuda=2, mps=True)
    for name in ("cpu", "cuda", "cuda:0", "cuda:1", "mps"):
        assert pick_device(name) == torch.device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "cpu:1", "meta", "xpu", "vulkan"])
def test_absent_devices(machine, name):
    machine()
    with pytest.raises(UserError, match=f"^device '{name}' is not available here; use auto$"):
        pick_device(name)


def test_one_device_too_many(machine):
    machine(cuda=2)
    with pytest.raises(UserError, match="'cuda:2' is not available"):
        pick_device("cuda:2")
    with pytest.raises(UserError, match="'mps' is not available"):
        pick_device("mps")


@pytest.mark.parametrize("name", ["", "gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cuda:" + "9" * 30, "cpu "])
def test_unknown_devices(machine, name):
    machine(cuda=2, mps=True)
    with pytest.raises(UserError, match="is unknown; use auto, cpu, cuda, cuda:N or mps"):
        pick_device(name)
