"""What is shown while training: progress, log lines, TensorBoard scalars, plots, audio and captions."""

import logging
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from skipmodal import image, text
from skipmodal.audio import AudioConfig
from skipmodal.data.batches import Batch
from skipmodal.models.bottleneck import Memory
from skipmodal.models.skipmodal import SkipModal
from skipmodal.vocoder import griffin_lim

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLE_SECONDS = 10.0  # cap of a free-running sample
SAMPLE_CHARACTERS = 150


class Monitor:
    """Progress on stderr, and TensorBoard events in the run's folder where TensorBoard is installed."""

    def __init__(self, run: Path, step: int, steps: int) -> None:
        self.console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"),
            TimeRemainingColumn(), console=self.console, disable=not self.console.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task("", total=steps, completed=step)
        self._writer = _summary_writer(run, step)
        if self._writer is None:
            self.say("TensorBoard or matplotlib is not installed: no curves or plots (pip install 'skipmodal[train]')")
        self._clock = (time.perf_counter(), step)

    def __enter__(self) -> "Monitor":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self._writer is not None:
            self._writer.close()

    def say(self, message: str) -> None:
        """One line for the user."""
        self.console.print(message, highlight=False, markup=False, soft_wrap=True)

    def step(self, step: int) -> None:
        self._progress.update(self._task, completed=step)

    def scalars(self, group: str, step: int, values: dict[str, float]) -> None:
        """Logs values under `group/name`; a `train` group also measures the speed since the last one."""
        if group == "train":
            now = time.perf_counter()
            values = {**values, "steps_per_second": (step - self._clock[1]) / max(now - self._clock[0], 1e-9)}
            self._clock = (now, step)
        line = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        self._progress.update(self._task, description=f"loss {values['loss']:.4g}" if "loss" in values else "")
        if group != "train" or not self.console.is_terminal:
            self.say(f"{group} {step}: {line}")
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)
            self._writer.flush()

    @torch.no_grad()
    def samples(self, step: int, model: SkipModal, batch: Batch, linear: Tensor, audio: AudioConfig) -> None:
        """Decodes fixed validation items free-running, image to speech included, which no loss trains."""
        n_a = len(batch.images)
        references = [text.decode(ids) for ids in batch.ids.tolist()]
        u_image = model.encode_image(batch.images)
        u_text = model.encode_text(batch.ids, batch.lengths)
        u_speech = model.encode_speech(batch.mel, batch.mel_lengths)
        captions, _ = model.text_decoder.generate(torch.cat([u_image, u_speech]), SAMPLE_CHARACTERS)
        frames = int(SAMPLE_SECONDS * audio.sample_rate / audio.hop_length)
        speech = model.speech_decoder.generate(torch.cat([u_image, u_text[n_a:]]), frames)
        hypotheses = [text.decode(ids) for ids in captions.tolist()]
        for i, (reference, hypothesis) in enumerate(zip(references, hypotheses, strict=True)):
            self.say(f"  {'image' if i < n_a else 'speech'} -> text: {hypothesis!r} (reference {reference!r})")
        self.say(f"  stopped by itself: {int((~speech.capped).sum())} of {len(speech.capped)} utterances")
        if self._writer is None:
            return
        rows = "\n".join(f"| {r} | {h} |" for r, h in zip(references, hypotheses, strict=True))
        self._writer.add_text("samples/captions", f"| reference | decoded |\n|---|---|\n{rows}", step)
        drawn = np.concatenate([image.to_pixels(batch.images), image.to_pixels(model.image_decoder(u_text[:n_a]))], 2)
        self._writer.add_images("samples/picture_and_text2img", drawn, step, dataformats="NHWC")
        wavs = griffin_lim(speech.linear, speech.lengths, audio)
        names = [f"img2speech_{i}" for i in range(n_a)] + [f"text2speech_{i}" for i in range(len(wavs) - n_a)]
        for name, wav in zip(names, wavs, strict=True):
            peak = wav.abs().max().clamp(min=1e-5)
            self._writer.add_audio(f"samples/{name}", wav / peak, step, audio.sample_rate)
        if n_a < len(wavs):
            length = int(speech.lengths[n_a])
            mel, stop = speech.mel[n_a, :length], speech.stop[n_a].sigmoid()
            self._writer.add_figure("samples/text2speech", _plot_speech(batch.mel[0], mel, linear[0], stop), step)
        if isinstance(model.memory, Memory):
            z = model.transformer(
                torch.cat([model.image_encoder(batch.images), model.text_encoder(batch.ids, batch.lengths)])
            )
            self._writer.add_figure("samples/alignment_memory", _plot_memory(model.memory.weights(z)), step)


def _summary_writer(run: Path, step: int) -> Any:
    try:
        import matplotlib.figure  # noqa: F401
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    # Steps after the checkpoint that a resumed run starts from are drawn anew.
    return SummaryWriter(str(run / "tensorboard"), purge_step=step + 1 if step else None)


def _plot_speech(target: Tensor, mel: Tensor, linear: Tensor, stop: Tensor) -> "Figure":
    """Target and free-running mel, target linear, and the stop output over decoder steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 8), layout="constrained")
    top, middle, bottom, last = figure.subplots(4, 1)
    for axes, values, title in (
        (top, target, "mel, target"), (middle, mel, "mel, free-running"), (bottom, linear, "linear, target"),
    ):  # fmt: skip
        axes.imshow(values.float().cpu().numpy().T, origin="lower", aspect="auto", vmin=0, vmax=1, interpolation="none")
        axes.set(title=title, xlabel="frame")
    last.plot(stop.float().cpu().numpy())
    last.set(title="stop probability", xlabel="decoder step", ylim=(0, 1))
    return figure


def _plot_memory(weights: Tensor) -> "Figure":
    """The alignment of items to basis vectors, one picture a head: weights (heads, N, n_k)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), layout="constrained")
    for axes, head in zip(
        figure.subplots(len(weights), 1, squeeze=False)[:, 0], weights.float().cpu().numpy(), strict=True
    ):
        axes.imshow(head, aspect="auto", interpolation="none")
        axes.set(xlabel="basis vector", ylabel="item")
    return figure
