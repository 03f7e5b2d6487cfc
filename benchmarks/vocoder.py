"""Griffin-Lim against librosa's and torchaudio's: seconds, ratio to librosa, spectral convergence.

    OMP_NUM_THREADS=1 python benchmarks/vocoder.py

Run it on an idle machine: other load goes into every figure. All get the same magnitudes at the paper's settings
(n_fft 2048, window 800, hop 200), the same iterations, momentum 0.99 and one thread. Spectral convergence is the
distance of the result's magnitudes from the target, as a part of the target's norm: lower is better.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch start their pools

import itertools
import statistics
import time
from collections.abc import Callable

import librosa
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.signal import lfilter

from skipmodal.audio import AudioConfig, linear_spectrogram, magnitudes
from skipmodal.vocoder import MOMENTUM, griffin_lim

# Power and pre-emphasis are ours alone; without them everybody solves the same problem.
CONFIG = AudioConfig(power=1.0, preemphasis=0.0)
ITERATIONS = (30, 60)
BATCH = 8


def speech_like(seconds: float, seed: int) -> np.ndarray:
    """Syllables of formant-filtered glottal pulses and of noise, at a gliding pitch, eight a second."""
    rng = np.random.default_rng(seed)
    rate = CONFIG.sample_rate
    n = int(seconds * rate)
    t = np.arange(n) / rate
    pitch = 120 * 2 ** (0.3 * np.sin(2 * np.pi * 0.7 * t + seed) + 0.1 * np.sin(2 * np.pi * 2.3 * t))
    pulses = np.diff(np.floor(np.cumsum(pitch) / rate), prepend=0)
    wav = np.zeros(n)
    edges = np.linspace(0, n, int(seconds * 8) + 1).astype(int)
    for start, end in itertools.pairwise(edges):
        voiced = rng.random() < 0.75
        piece = (pulses[start:end] if voiced else 0) + 0.02 * rng.standard_normal(end - start)
        formants = ((300, 800, 80), (900, 2200, 120), (2300, 3200, 160)) if voiced else ((2500, 5000, 400),)
        for low, high, width in formants:
            radius = np.exp(-np.pi * width / rate)
            angle = 2 * np.pi * rng.uniform(low, high) / rate
            piece = lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], piece)
        wav[start:end] = piece / np.abs(piece).max() * rng.uniform(0.2, 1) * np.hanning(end - start) ** 0.3
    return (0.7 * wav / np.abs(wav).max()).astype(np.float32)


def convergence(wavs: list[np.ndarray], targets: list[np.ndarray]) -> float:
    """Mean over the items; measured by librosa, whoever made the waveform."""
    distances = []
    for wav, target in zip(wavs, targets, strict=True):
        stft = librosa.stft(
            wav, n_fft=CONFIG.n_fft, hop_length=CONFIG.hop_length, win_length=CONFIG.win_length, pad_mode="constant"
        )
        distances.append(np.linalg.norm(np.abs(stft) - target) / np.linalg.norm(target))
    return float(np.mean(distances))


def ours(linear: torch.Tensor, iterations: int) -> list[np.ndarray]:
    lengths = torch.full((len(linear),), linear.shape[1])
    return [wav.numpy() for wav in griffin_lim(linear, lengths, CONFIG, iterations)]


def librosas(targets: list[np.ndarray], iterations: int) -> list[np.ndarray]:
    return [
        librosa.griffinlim(
            target,
            n_iter=iterations,
            n_fft=CONFIG.n_fft,
            hop_length=CONFIG.hop_length,
            win_length=CONFIG.win_length,
            momentum=MOMENTUM,
            pad_mode="constant",
            random_state=0,
        )
        for target in targets
    ]


def torchaudios(magnitude: torch.Tensor, iterations: int) -> list[np.ndarray]:
    import torchaudio

    torch.manual_seed(0)
    transform = torchaudio.transforms.GriffinLim(
        CONFIG.n_fft,
        iterations,
        CONFIG.win_length,
        CONFIG.hop_length,
        power=1.0,
        momentum=MOMENTUM,
        length=(magnitude.shape[2] - 1) * CONFIG.hop_length,
    )
    return list(transform(magnitude).numpy())


def missing_torchaudio() -> str | None:
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: built for another torch
        installed = not isinstance(error, ModuleNotFoundError)
        return f"torchaudio {'does not import beside this torch' if installed else 'is not installed'}: left out"
    return None


def seconds_of(run: Callable[[], list[np.ndarray]], repeats: int) -> tuple[float, list[np.ndarray]]:
    """Median wall-clock seconds after one run to warm up, and the waveforms."""
    wavs = run()
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent), wavs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.5, help="of speech-like signal an item")
    parser.add_argument("--repeats", type=int, default=5, help="runs; the median is printed")
    args = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    hop = CONFIG.hop_length
    samples = int(args.seconds * CONFIG.sample_rate) // hop * hop
    wavs = np.stack([speech_like(args.seconds, seed)[:samples] for seed in range(BATCH)])
    linear = linear_spectrogram(torch.from_numpy(wavs), CONFIG)
    magnitude = magnitudes(linear, CONFIG).transpose(1, 2).contiguous()
    targets = list(magnitude.numpy())
    left_out = missing_torchaudio()

    table = Table(title=f"{args.seconds:g} s an item, one thread, median of {args.repeats}")
    for column, justify in (
        ("batch", "right"), ("iterations", "right"), ("code", "left"), ("seconds", "right"),
        ("of librosa's", "right"), ("spectral convergence", "right"),
    ):  # fmt: skip
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for batch in (1, BATCH):
        for n in ITERATIONS:
            runs: dict[str, Callable[[], list[np.ndarray]]] = {
                "librosa": lambda b=batch, n=n: librosas(targets[:b], n),  # type: ignore[misc]
                "skipmodal": lambda b=batch, n=n: ours(linear[:b], n),  # type: ignore[misc]
            }
            if not left_out:
                runs["torchaudio"] = lambda b=batch, n=n: torchaudios(magnitude[:b], n)  # type: ignore[misc]
            reference = 0.0
            for name, run in runs.items():
                with console.status(f"batch {batch}, {n} iterations: {name}"):
                    seconds, results = seconds_of(run, args.repeats)
                reference = reference or seconds
                distance = convergence(results, targets[:batch])
                table.add_row(
                    str(batch), str(n), name, f"{seconds:.3f}", f"{seconds / reference:.2f}", f"{distance:.4f}"
                )
            table.add_section()
    console.print(table)
    if left_out:
        console.print(left_out)
    if hasattr(os, "getloadavg"):
        console.print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
