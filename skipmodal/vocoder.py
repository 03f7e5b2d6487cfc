"""Griffin-Lim: linear spectrograms -> waveforms, batched on the device, with momentum.

The fast variant of Perraudin, Balazs and Sondergaard (WASPAA 2013), momentum 0.99.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from skipmodal.audio import AudioConfig, magnitudes

MOMENTUM = 0.99


@torch.no_grad()
def griffin_lim(linear: Tensor, lengths: Tensor, config: AudioConfig, iterations: int | None = None) -> list[Tensor]:
    """Waveforms of a padded batch; a batch gives the numbers of its items one by one.

    Args:
        linear: (B, frames, n_linear), scaled to [0, 1] as in `audio.spectrograms`.
        lengths: (B,) valid frames, at least 1.
        iterations: default, the configuration's.

    Returns:
        B tensors of (frames - 1) * hop_length samples (one hop for a single frame), on the CPU.
    """
    iterations = config.griffin_lim_iters if iterations is None else iterations
    if linear.device.type != "cpu":
        return _together(linear, lengths.to(linear.device), config, iterations)
    # Here padding costs as much as sound, and only one item's spectra fit in the cache.
    items = zip(linear, lengths.tolist(), strict=True)
    return [_together(item[None, :n], torch.tensor([n]), config, iterations)[0] for item, n in items]


def _together(linear: Tensor, lengths: Tensor, config: AudioConfig, iterations: int) -> list[Tensor]:
    """The whole batch at once, as it pays where the arithmetic is parallel."""
    if linear.shape[1] == 1:  # a hop of samples has two frames, of which the second is padding
        linear = F.pad(linear, (0, 0, 0, 1))
    frame_mask = torch.arange(linear.shape[1], device=linear.device) < lengths[:, None]
    magnitude = magnitudes(linear.float(), config) ** config.power
    magnitude = magnitude.masked_fill(~frame_mask[:, :, None], 0)
    transform = _Transform(config, frame_mask)
    magnitude = transform.decimate(magnitude)

    phase = transform.steady_phase(magnitude.shape[1]).expand_as(magnitude)
    spectrum = torch.polar(magnitude, phase)
    previous = torch.zeros_like(spectrum)
    for _ in range(iterations):
        rebuilt = transform.forward(transform.inverse(spectrum))
        direction = rebuilt - MOMENTUM / (1 + MOMENTUM) * previous
        squared = direction.real.square().addcmul_(direction.imag, direction.imag)  # `abs` of complex is slow
        spectrum = direction * (magnitude * squared.clamp_(min=1e-32).rsqrt_())
        previous = rebuilt
    wav = _deemphasis(transform.inverse(spectrum), config.preemphasis)
    samples = ((lengths - 1) * config.hop_length).clamp(min=config.hop_length)
    return [item[:n] for item, n in zip(wav.cpu(), samples.tolist(), strict=True)]


class _Transform:
    """STFT and inverse over the window's samples only, with each item's own overlap-add envelope.

    A window no longer than half the transform loses nothing in a transform of half the size: every second
    bin of the longer one *is* the shorter one.
    """

    def __init__(self, config: AudioConfig, frame_mask: Tensor) -> None:
        self.hop, self.win, self.n_fft, self.step = config.hop_length, config.win_length, config.n_fft, 1
        while self.win <= self.n_fft // 2 and self.n_fft % 2 == 0:
            self.n_fft, self.step = self.n_fft // 2, self.step * 2
        self.left = (self.win + 1) // 2  # where `torch.stft` centres an odd window in its even transform
        batch, frames = frame_mask.shape
        self.samples = max((frames - 1) * self.hop, self.hop)
        self.window = torch.hann_window(self.win, device=frame_mask.device)
        envelope = self._overlap_add((self.window**2).expand(batch, frames, -1) * frame_mask[:, :, None])
        ends = (frame_mask.sum(1, keepdim=True) - 1).clamp(min=1) * self.hop
        inside = torch.arange(self.samples, device=frame_mask.device) < ends
        self.gain = inside / envelope.clamp(min=1e-8)

    def decimate(self, magnitude: Tensor) -> Tensor:
        return magnitude[..., :: self.step].contiguous()

    def steady_phase(self, frames: int) -> Tensor:
        """(frames, bins): each bin advances as a steady sinusoid would; deterministic, better than noise."""
        bins = torch.arange(self.n_fft // 2 + 1, dtype=torch.float64)  # on the CPU: MPS has no float64
        turns = torch.arange(frames)[:, None] * (bins * self.hop / self.n_fft)
        return (2 * torch.pi * (turns % 1)).float().to(self.window.device)

    def forward(self, wav: Tensor) -> Tensor:
        """(B, samples) -> complex (B, frames, bins)."""
        frames = F.pad(wav, (self.left, self.win - self.left)).unfold(1, self.win, self.hop)
        return torch.fft.rfft(frames * self.window, n=self.n_fft)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """Complex (B, frames, bins) -> (B, samples): the least-squares inverse."""
        frames = torch.fft.irfft(spectrum, n=self.n_fft)[..., : self.win]
        return self._overlap_add(frames * self.window) * self.gain

    def _overlap_add(self, frames: Tensor) -> Tensor:
        # A window is a few hops: their sums are ten times as fast as `fold`.
        count, overlap = frames.shape[1], -(-self.win // self.hop)
        parts = F.pad(frames, (0, overlap * self.hop - self.win)).unflatten(2, (overlap, self.hop))
        added = parts.new_zeros(len(parts), count + overlap - 1, self.hop)
        for i in range(overlap):
            added[:, i : i + count] += parts[:, :, i]
        return added.flatten(1)[:, self.left : self.left + self.samples]


def _deemphasis(wav: Tensor, coefficient: float) -> Tensor:
    """y[t] = x[t] + coefficient * y[t - 1], as a product of spectra; padding outlasts the filter's tail."""
    tail = math.ceil(math.log(1e-9) / math.log(coefficient)) if coefficient else 0
    n = wav.shape[1] + max(tail, 2048)
    turns = torch.arange(n // 2 + 1, device=wav.device) / n
    response = 1 - coefficient * torch.polar(torch.ones_like(turns), -2 * torch.pi * turns)
    return torch.fft.irfft(torch.fft.rfft(wav, n=n) / response, n=n)[:, : wav.shape[1]]
