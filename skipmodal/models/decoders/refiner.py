"""What a spectrogram that was predicted lacks, drawn by a flow.

A decoder that minimises |mel - predicted| answers with the middle of all that could be, which is blurred and sounds
muffled. The refiner learns the distribution of the difference instead: a velocity that carries noise, along straight
lines, to the difference of a recording (Lipman et al., Flow Matching, ICLR 2023; for speech Mehta et al., Matcha-TTS,
ICASSP 2024, whose U-Net is here the blocks of ConvNeXt as Vocos has them).
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from skipmodal.models.decoders.speech import Matching
from skipmodal.models.layers import length_mask

WIDTH = 192
KERNEL = 7  # frames
TIMES = 64  # numbers that tell the time between noise (0) and speech (1)
SCALE = 0.05  # of the differences in the units of mel, as they were measured with `base` and a natural voice
MEL_MEAN, MEL_DEVIATION = 0.5, 0.2  # about those of speech
STEPS = 4  # of Euler's method; more sound alike
TEMPERATURE = 0.4  # of the noise in synthesis: with all of it, the voice is rough
PERIOD = 1024  # frames after which the noise repeats


class _Block(nn.Module):
    """Depthwise convolution -> LayerNorm -> two FC layers, beside the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.along = nn.Conv1d(WIDTH, WIDTH, KERNEL, padding=KERNEL // 2, groups=WIDTH)
        self.time = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.across = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor, time: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, WIDTH), time (B, WIDTH), mask (B, T, 1)."""
        y = self.along((x * mask).transpose(1, 2)).transpose(1, 2)
        return x + self.across(self.norm(y + self.time(time)[:, None]))  # type: ignore[no-any-return]


class Refiner(nn.Module):
    """Estimates the velocity; a mel spectrogram (B, T, n_mels) of lengths (B,) is all it is told."""

    noise: Tensor  # (PERIOD, n_mels), the same for every sentence: so is what it makes

    def __init__(self, blocks: int, n_mels: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(2 * n_mels, WIDTH)
        self.time = nn.Sequential(nn.Linear(TIMES, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.blocks = nn.ModuleList(_Block() for _ in range(blocks))
        self.norm = nn.LayerNorm(WIDTH)
        self.output = nn.Linear(WIDTH, n_mels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        noise = np.random.default_rng(0).standard_normal((PERIOD, n_mels), dtype=np.float32)
        self.register_buffer("noise", torch.from_numpy(noise), persistent=False)

    def match(self, predicted: Tensor, recorded: Tensor, lengths: Tensor) -> Matching:
        """The velocity at a random moment of each item's way from noise to recorded - predicted, and the true one."""
        difference = (recorded - predicted) / SCALE
        noise = torch.randn_like(difference)
        time = torch.rand(len(difference), device=difference.device)
        at = noise + time[:, None, None] * (difference - noise)
        return Matching(self(at, predicted, time, lengths), difference - noise, lengths)

    def refine(self, mel: Tensor, lengths: Tensor, noise: Tensor | None = None) -> Tensor:
        """The spectrogram with the difference that was drawn, from `noise` of the same shape or from its own."""
        if noise is None:
            noise = self.noise[torch.arange(mel.shape[1], device=mel.device) % PERIOD].expand_as(mel)
        drawn = TEMPERATURE * noise
        for step in range(STEPS):
            time = torch.full((len(mel),), step / STEPS, device=mel.device)
            drawn = drawn + self(drawn, mel, time, lengths) / STEPS
        return mel + SCALE * drawn

    def forward(self, x: Tensor, mel: Tensor, time: Tensor, lengths: Tensor) -> Tensor:
        """x and mel (B, T, n_mels), time (B,) from 0 to 1, lengths (B,) -> velocity (B, T, n_mels)."""
        mask = length_mask(lengths, x.shape[1])[:, :, None]
        angles = time[:, None] * torch.exp(torch.linspace(0, math.log(1000), TIMES // 2, device=x.device))
        told = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        x = self.inputs(torch.cat([x, (mel - MEL_MEAN) / MEL_DEVIATION], 2))
        for block in self.blocks:
            x = block(x, told, mask)
        return self.output(self.norm(x))  # type: ignore[no-any-return]
