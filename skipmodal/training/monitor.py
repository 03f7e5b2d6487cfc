"""What is shown while training: progress, log lines, TensorBoard scalars, plots, audio and captions."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skipmodal import image, text
from skipmodal.audio import AudioConfig
from skipmodal.data.batches import Batch
from skipmodal.modality import Modality
from skipmodal.models.base import System
from skipmodal.models.latent import Latent
from skipmodal.plots import draw_sound, draw_weights
from skipmodal.progress import say
from skipmodal.vocoder import griffin_lim

SAMPLE_SECONDS = 10.0  # cap of a free-running sample
SAMPLE_CHARACTERS = 150


class Monitor:
    """Progress on stderr, and TensorBoard events in the run's folder where TensorBoard is installed."""

    def __init__(self, run: Path, step: int, steps: int, shown: bool = True) -> None:
        self._shown, self._counts = shown, (step, steps)
        self._bar: Any = None  # where stderr is a terminal
        self._writer = _summary_writer(run, step) if shown else None
        if self._writer is None:
            self.say("no curves or plots: TensorBoard or matplotlib is missing (pip install tensorboard matplotlib)")
        self._clock = (time.perf_counter(), step)

    def __enter__(self) -> "Monitor":
        if self._shown and sys.stderr.isatty():
            from tqdm import tqdm

            step, steps = self._counts
            self._bar = tqdm(total=steps, initial=step, unit=" steps", leave=False, dynamic_ncols=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._writer is not None:
            self._writer.close()

    def say(self, message: str) -> None:
        """One line for the user."""
        if self._shown:
            say(message)

    def step(self, step: int) -> None:
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def scalars(self, group: str, step: int, values: dict[str, float]) -> None:
        """Logs values under `group/name`; a `train` group also measures the speed since the last one."""
        if group == "train":
            now = time.perf_counter()
            values = {**values, "steps_per_second": (step - self._clock[1]) / max(now - self._clock[0], 1e-9)}
            self._clock = (now, step)
        line = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self._bar is not None and "loss" in values:
            self._bar.set_postfix_str(f"loss {values['loss']:.4g}")
        if group != "train" or self._bar is None:
            self.say(f"{group} {step}: {line}")
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)
            self._writer.flush()

    @torch.no_grad()
    def samples(self, step: int, model: System, batch: Batch, linear: Tensor, audio: AudioConfig) -> None:
        """Decodes fixed validation items free-running, image to speech included, which no loss trains."""
        encoders: dict[Modality, Callable[[], Latent]] = {
            "image": lambda: model.encode_image(batch.pictures),
            "text": lambda: model.encode_text(batch.ids, batch.lengths),
            "speech": lambda: model.encode_speech(batch.mel, batch.mel_lengths),
        }
        latents = {modality: encode() for modality, encode in encoders.items() if modality in model.reads}
        if "text" in model.writes:
            self._captions(step, model, batch, latents)
        if "image" in model.writes and "text" in latents and self._writer is not None:
            drawn = image.to_pixels(model.generate_image(latents["text"]))[: len(batch.images)]
            pictures = np.concatenate([image.to_pixels(batch.images), drawn], 2)
            self._writer.add_images("samples/picture_and_text2img", pictures, step, dataformats="NHWC")
        if "speech" in model.writes:
            self._speech(step, model, batch, latents, linear, audio)
        weights = model.addressed(*(latents[each] for each in ("image", "text") if each in latents))
        if weights is not None and self._writer is not None:
            figure = draw_weights(_array(weights), "basis vector", "item")
            self._writer.add_figure("samples/alignment_memory", figure, step)

    def _captions(self, step: int, model: System, batch: Batch, latents: dict[Modality, Latent]) -> None:
        references = [text.decode(i) for i in batch.ids.tolist()]  # validation has one text a picture
        n_a, rows = len(batch.images), []
        of_sources: dict[Modality, list[str]] = {"image": references[:n_a], "speech": references[n_a:]}
        for source, of_source in of_sources.items():
            if source not in latents:
                continue
            found = model.generate_text(latents[source], SAMPLE_CHARACTERS).ids.tolist()
            for reference, ids in zip(of_source, found, strict=True):
                rows.append(f"| {reference} | {text.decode(ids)} |")
                self.say(f"  {source} -> text: {text.decode(ids)!r} (reference {reference!r})")
        if self._writer is not None:
            table = "\n".join(["| reference | decoded |", "|---|---|", *rows])
            self._writer.add_text("samples/captions", table, step)

    def _speech(
        self, step: int, model: System, batch: Batch, latents: dict[Modality, Latent], linear: Tensor,
        audio: AudioConfig,
    ) -> None:  # fmt: skip
        frames = int(SAMPLE_SECONDS * audio.sample_rate / audio.hop_length)
        sources: dict[str, Modality] = {"img2speech": "image", "text2speech": "text"}
        spoken = {
            name: model.generate_speech(latents[source], frames, SAMPLE_CHARACTERS)[0]
            for name, source in sources.items()
            if source in latents
        }
        capped = torch.cat([speech.capped for speech in spoken.values()])
        self.say(f"  stopped by itself: {int((~capped).sum())} of {len(capped)} utterances")
        if self._writer is None:
            return
        for name, speech in spoken.items():
            for i, wav in enumerate(griffin_lim(speech.linear, speech.lengths, audio)):
                peak = wav.abs().max().clamp(min=1e-5)
                self._writer.add_audio(f"samples/{name}_{i}", wav / peak, step, audio.sample_rate)
        if "text2speech" not in spoken:
            return
        from_b, n_a = spoken["text2speech"], len(batch.images)  # its first items are A's texts
        length, steps, characters = int(from_b.lengths[n_a]), int(from_b.steps[n_a]), int(batch.lengths[n_a])
        frames_b = int(batch.mel_lengths[0])
        attention = None if from_b.alignment is None else _array(from_b.alignment[n_a, :steps, :characters])
        stop = None if from_b.stop is None else _array(from_b.stop[n_a, :steps].sigmoid())
        figure = draw_sound(
            {"target mel": _array(batch.mel[0, :frames_b]), "mel, free-running": _array(from_b.mel[n_a, :length]),
             "target linear": _array(linear[0, :frames_b])},
            audio, sentence=text.decode(batch.ids[n_a].tolist()), attention=attention, stop=stop,
            frames_a_step=model.frames_a_step,
        )  # fmt: skip
        self._writer.add_figure("samples/text2speech", figure, step)


def _summary_writer(run: Path, step: int) -> Any:
    try:
        import matplotlib.figure  # noqa: F401
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    # Steps after the checkpoint that a resumed run starts from are drawn anew.
    return SummaryWriter(str(run / "tensorboard"), purge_step=step + 1 if step else None)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()
