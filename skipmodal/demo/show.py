"""What the page shows of a translation: sound as samples and as a figure, and where each word was seen."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from skipmodal import image, text
from skipmodal.audio import AudioConfig, spectrograms
from skipmodal.models.latent import Latent
from skipmodal.plots import draw_words, to_png
from skipmodal.translate import Item, Translator
from skipmodal.translation import Translation
from skipmodal.words import Word

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PHOTO_SIDE = 256  # pixels of the photo under each word's attention


def translate(translator: Translator, item: Item, source: str, target: str) -> tuple[Translation, Latent]:
    """One item, and its latent; what is spoken is one sentence."""
    latent = translator.encode([translator.read(item, source)], source)
    (result,) = translator.decode(latent, target)
    return result, latent


def draw_speech(wav: np.ndarray, audio: AudioConfig, words: Sequence[Word]) -> "Figure":
    """The waveform, and the mel spectrogram with each word under its stretch of time."""
    from matplotlib.figure import Figure

    mel, _ = spectrograms(torch.from_numpy(wav)[None], audio)
    seconds = len(wav) / audio.sample_rate
    figure = Figure(figsize=(9, 4), layout="constrained")
    wave, bands = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    wave.plot(np.arange(len(wav)) / audio.sample_rate, wav, color="#0072B2", linewidth=0.4)
    wave.set(ylim=(-1, 1), yticks=[], title="waveform")
    bands.imshow(mel[0].T, origin="lower", aspect="auto", extent=(0, seconds, 0, audio.n_mels))
    bands.set(ylabel="mel band", xlim=(0, seconds), title="spectrogram")
    for word in words:
        for axes in (wave, bands):
            axes.axvline(word.begin, color="0.6", linewidth=0.6)
    if words:
        middles, names = [(word.begin + word.end) / 2 for word in words], [word.text for word in words]
        bands.set_xticks(middles, names, rotation=35 if len(words) > 8 else 0)
        bands.tick_params(axis="x", length=0)
    return figure


@torch.inference_mode()
def draw_seen(translator: Translator, item: Path, latent: Latent, sentence: str) -> "Figure | None":
    """The photo once for each word, lit where the text decoder attended to; None where it does not attend."""
    weights = translator.model.attention(latent, torch.tensor([text.encode(sentence)], device=translator.device))
    if weights is None:
        return None
    photo = Image.fromarray(image.read_photo(item, 4 * PHOTO_SIDE)).resize((PHOTO_SIDE, PHOTO_SIDE))
    return draw_words(np.asarray(photo), sentence, weights[0, : len(sentence)].cpu().numpy())


def to_image(figure: "Figure") -> Image.Image:
    """A figure as a picture."""
    return Image.open(io.BytesIO(to_png(figure)))
