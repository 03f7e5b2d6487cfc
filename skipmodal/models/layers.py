"""Building blocks that encoders and decoders share. Padding never reaches a convolution, a statistic or a state."""

from itertools import pairwise

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.text import PAD


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """(B,) lengths -> (B, size) bool, true where valid."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def trim(ids: Tensor) -> Tensor:
    """(B, L) without the columns that are padding alone."""
    return ids[:, : max(int((ids != PAD).sum(1).max()), 1)] if len(ids) else ids


class Packing:
    """Between padded sequences (B, T, ...) and their valid places (N, ...) alone."""

    def __init__(self, mask: Tensor) -> None:
        """mask (B, T) bool, true where valid."""
        self.shape, self.places = mask.shape, mask.flatten().nonzero()[:, 0]

    def pack(self, x: Tensor) -> Tensor:
        """(B, T, ...) -> (N, ...)."""
        return x.flatten(0, 1).index_select(0, self.places)

    def pad(self, x: Tensor) -> Tensor:
        """(N, ...) -> (B, T, ...), zeros in the padding."""
        padded = x.new_zeros(self.shape.numel(), *x.shape[1:])
        return padded.index_copy(0, self.places, x).unflatten(0, self.shape)


class _Sum(torch.autograd.Function):
    """The sum over all processes, through which gradients go back to all of them."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def processes() -> int:
    """How many train one model together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(x: Tensor) -> Tensor:
    """x itself where there is one process."""
    return _Sum.apply(x) if processes() > 1 else x  # type: ignore[no-any-return,no-untyped-call]


def gather_over_processes(x: Tensor) -> Tensor:
    """The rows (N, ...) of all processes, which have as many each, one after the other; x itself of one process.

    Without gradients it is x, too: the first process validates alone.
    """
    if processes() == 1 or not torch.is_grad_enabled():
        return x
    every = x.new_zeros(processes(), *x.shape).index_add(0, torch.tensor([dist.get_rank()], device=x.device), x[None])
    return sum_over_processes(every).flatten(0, 1)


def mean(values: Tensor) -> Tensor:
    """The mean over the positions of all processes."""
    return ratio(values.float().sum(), torch.tensor(float(values.numel()), device=values.device))


def ratio(total: Tensor, count: Tensor) -> Tensor:
    """This process's total over the mean count of all processes, so that their mean is that of the whole batch.

    Without gradients it is this process's own mean: the first one validates alone, and must not wait for the others.
    """
    count = count.detach().to(total)
    if torch.is_grad_enabled():
        count = sum_over_processes(count) / processes()
    return total / count.clamp(min=1)


class _Norm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over (N, C, ...) whose statistics are those of the whole batch, whoever has which part of it."""

    def _check_input_dim(self, x: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or processes() == 1:
            return super().forward(x)
        mean, variance = self.statistics(x)
        shape = (1, -1, *[1] * (x.dim() - 2))
        x = (x - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        return x * self.weight.view(shape) + self.bias.view(shape)

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (C,) of x (N, C, ...) over all processes; the running ones move towards them."""
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        x = x.to(self.running_mean)  # not in 16 bits
        dims = [0, *range(2, x.dim())]
        count = sum_over_processes(x.new_tensor(float(x.numel() // x.shape[1])))
        mean = sum_over_processes(x.sum(dims)) / count
        centred = x - mean.view(1, -1, *[1] * (x.dim() - 2))
        variance = sum_over_processes(centred.square().sum(dims)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            momentum = 0.1 if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), momentum)
        return mean, variance


class ImageNorm(_Norm):
    """Batch norm of feature maps (B, C, H, W)."""


class MaskedBatchNorm(_Norm):
    """Batch norm whose statistics see valid positions only; padding comes out as zeros.

    Input (B, T, C) or (B, T, C, F) with mask (B, T), or (N, C) without; same shape out.
    """

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            return super().forward(x)
        packing = Packing(mask)
        return packing.pad(super().forward(packing.pack(x)))


class RunningNorm(_Norm):
    """Batch norm that normalises by its running statistics in training too: (N, C) -> (N, C).

    With a batch's own, an item's output depends on what else is there. Where tokens of several modalities are
    normalised together their proportions tell how long the batch's texts are, which the decoder then counts on.
    """

    def forward(self, x: Tensor) -> Tensor:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        mean, variance = self.running_mean.clone(), self.running_var.clone()
        if self.training:
            # A mean of all batches at first: while it crept up from 0 and 1, the tanh before it saturated for good.
            self.momentum = max(0.01, 1 / (int(self.num_batches_tracked) + 1))
            with torch.no_grad():
                self.statistics(x)
        return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)


class Prenet(nn.Sequential):
    """FC -> ReLU -> dropout, once per width (Tacotron's pre-net)."""

    def __init__(self, width_in: int, widths: tuple[int, ...], dropout: float) -> None:
        layers: list[nn.Module] = []
        for a, b in pairwise((width_in, *widths)):
            layers += [nn.Linear(a, b), nn.ReLU(), nn.Dropout(dropout)]
        super().__init__(*layers)


class Highway(nn.Module):
    """y = t * relu(Hx) + (1 - t) * x, t = sigmoid(Tx); the gate starts mostly closed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.transform = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)
        nn.init.constant_(self.gate.bias, -1.0)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x))
        return gate * F.relu(self.transform(x)) + (1 - gate) * x


class _ConvNorm(nn.Module):
    """Conv1D with same padding -> [ReLU] -> batch norm, over (B, T, C)."""

    def __init__(self, width_in: int, width_out: int, kernel: int, relu: bool = True) -> None:
        super().__init__()
        self.padding, self.relu = ((kernel - 1) // 2, kernel // 2), relu
        self.conv = nn.Conv1d(width_in, width_out, kernel)
        self.norm = MaskedBatchNorm(width_out)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.conv(F.pad(x.transpose(1, 2), self.padding)).transpose(1, 2)
        return self.norm(F.relu(x) if self.relu else x, mask)  # type: ignore[no-any-return]


def lstm_step(lstm: nn.LSTM, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One step of a batch-first LSTM of one layer: x (B, 1, W), state (h, c) of (1, B, units) each.

    The same numbers as a call of the module, which on the CPU lays out its weights anew each time: ten times slower.
    """
    weights = [getattr(lstm, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    h, c = torch.lstm_cell(x[:, 0], (state[0][0], state[1][0]), *weights)
    return h[:, None], (h[None], c[None])


class BiGRU(nn.Module):
    """Bidirectional GRU over padded sequences: (B, T, width_in) with lengths (B,) -> (B, T, 2 * units).

    The backward direction reads each item reversed within its length. Not a packed
    sequence, whose backward pass on the CPU fills a whole gradient for every step. The padding is undefined.
    """

    def __init__(self, width_in: int, units: int) -> None:
        super().__init__()
        self.ahead = nn.GRU(width_in, units, batch_first=True)
        self.back = nn.GRU(width_in, units, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        steps = torch.arange(x.shape[1], device=x.device)
        mirror = lengths[:, None] - 1 - steps
        order = torch.where(mirror >= 0, mirror, steps)[:, :, None]
        back, _ = self.back(x.gather(1, order.expand_as(x)))
        return torch.cat([self.ahead(x)[0], back.gather(1, order.expand_as(back))], 2)


class CBHG(nn.Module):
    """Convolution bank + highway + bidirectional GRU (Tacotron, section 3.1 and table 1).

    Input (B, T, width_in) with lengths (B,); output (B, T, 2 * channels), zeros in the padding.
    """

    def __init__(self, width_in: int, banks: int, channels: int, projection: int) -> None:
        super().__init__()
        self.bank = nn.ModuleList(_ConvNorm(width_in, channels, k) for k in range(1, banks + 1))
        self.project_1 = _ConvNorm(banks * channels, projection, 3)
        self.project_2 = _ConvNorm(projection, width_in, 3, relu=False)
        self.resize = nn.Linear(width_in, channels) if width_in != channels else nn.Identity()
        self.highways = nn.Sequential(*(Highway(channels) for _ in range(4)))
        self.gru = BiGRU(channels, channels)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        mask = length_mask(lengths, x.shape[1])
        x = x * mask[:, :, None]
        y = torch.cat([conv(x, mask) for conv in self.bank], dim=2)
        # Width 2, stride 1, looking back: the step after the last valid one is padding.
        y = F.max_pool1d(y.transpose(1, 2), 2, stride=1, padding=1)[:, :, :-1].transpose(1, 2)
        y = self.project_2(self.project_1(y * mask[:, :, None], mask), mask)
        y = self.highways(self.resize(y + x))
        return self.gru(y, lengths) * mask[:, :, None]  # type: ignore[no-any-return]
