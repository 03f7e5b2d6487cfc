"""Pictures of what `skipmodal eval` measures: how the first items were said or read, z and u, learning curves."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from skipmodal import text
from skipmodal.data.prepared import PreparedDataset
from skipmodal.errors import UserError, require
from skipmodal.evaluation.curves import read_curves
from skipmodal.evaluation.embedding import MIN_ITEMS, embed, project
from skipmodal.evaluation.tasks import TASKS, direction
from skipmodal.items import encode_items
from skipmodal.models.latent import Latent
from skipmodal.plots import Picture, check_matplotlib, draw_curves, draw_points, draw_sound, draw_words, to_png
from skipmodal.translate import Translator

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_plots(task: str, out: Path | None, run: Path, translator: Translator) -> None:
    """Raises UserError, before the evaluation, where there will be no pictures, or no place for them."""
    if out is None:
        raise UserError("--plots: needs a folder for the pictures; give --out")
    if task not in (*TASKS, "embedding"):
        raise UserError(f"--plots: {task} has no pictures; {', '.join(TASKS)} and embedding have")
    if task.endswith("text") and not translator.model.attends:
        raise UserError(f"--plots: {task} shows attention, and the text decoder of this checkpoint has none")
    if task == "img2text" and translator.image.encoder == "regions":
        raise UserError("--plots: shows attention over a grid, and this checkpoint attends to regions")
    check_matplotlib()
    if (run / "tensorboard").is_dir():
        require(f"--plots: the curves of {run}", tensorboard="tensorboard")


def make_plots(
    translator: Translator, dataset: PreparedDataset, task: str, count: int, run: Path, *, split: str = "test",
    then: Translator | None = None, against: PreparedDataset | None = None,
) -> list[Picture]:  # fmt: skip
    """Of the first `count` items of a split, and the learning curves where `run` is that of a training.

    `then` and `against` are as in `evaluate` and `evaluate_embedding`, which have found that the data fit, as
    `check_plots` has that the model does. Raises UserError where the run can't be read.
    """
    if task == "embedding":
        pictures = [_plot_embedding(translator, dataset, against, count, split)]
    else:
        pictures = _plot_items(translator, dataset, task, count, split, then)
    if curves := read_curves(run):
        pictures.append(Picture("curves.png", "losses of the training, unweighted", to_png(draw_curves(curves))))
    return pictures


def _plot_items(
    translator: Translator, dataset: PreparedDataset, task: str, count: int, split: str, then: Translator | None
) -> list[Picture]:
    """Speech beside its target, or what each word was read from."""
    source, target = direction(task)
    pictures = []
    for number, i in enumerate(dataset.indices(split)[:count], 1):
        latent = encode_items(translator, dataset, np.array([i]), source)
        if target == "text":
            figure, sentence = _read(translator, dataset, i, latent)
        else:
            figure, sentence = _draw_spoken(translator, dataset, i, latent, then)
        caption = f"{dataset.item(i)['id']}: {sentence} (reference: {dataset.texts(i)[0]})"
        pictures.append(Picture(f"{task}-{number:03}.png", caption, to_png(figure)))
    return pictures


def _plot_embedding(
    translator: Translator, dataset: PreparedDataset, against: PreparedDataset | None, count: int, split: str
) -> Picture:
    found = embed(translator, dataset, against, split=split, limit=max(count, MIN_ITEMS))
    figure = draw_points({"z": project(found.z), "u": project(found.u)}, found.modalities)
    caption = f"t-SNE of z and u, {len(found.modalities)} points: where the modality is hidden, the colours mix"
    return Picture("embedding.png", caption, to_png(figure))


@torch.inference_mode()
def _draw_spoken(
    translator: Translator, dataset: PreparedDataset, i: int, latent: Latent, then: Translator | None
) -> tuple["Figure", str]:
    """One item as speech, with the sentence that it says where the model has one."""
    pictured = dataset.meta.image is not None
    sentence = "" if pictured else text.normalise(dataset.texts(i)[0])
    if then is not None:
        (written,) = translator.decode(latent, "text")
        sentence = written.text or "."
        translator, latent = then, then.encode([then.read(sentence, "text")], "text")
    audio = translator.audio
    frames = int(translator.max_seconds * audio.sample_rate / audio.hop_length)
    speech, behind = translator.model.generate_speech(latent, frames, translator.max_text, translator.beam)
    ids = behind.ids if behind else latent.ids
    sentence = sentence if ids is None else text.decode(ids[0].tolist())
    steps = int(speech.steps[0])
    target = {"target mel": dataset.mel(i)} if audio.fits(dataset.meta.audio) else {}
    attention = None if speech.alignment is None else speech.alignment[0, :steps, : len(sentence) + 1].cpu().numpy()
    stop = None if speech.stop is None else speech.stop[0, :steps].sigmoid().cpu().numpy()
    figure = draw_sound(
        {**target, "mel of the output": speech.mel[0, : int(speech.lengths[0])].cpu().numpy()}, audio,
        sentence=sentence, attention=attention, stop=stop, frames_a_step=translator.model.frames_a_step,
        picture=dataset.image(i) if pictured else None,
    )  # fmt: skip
    return figure, sentence


@torch.inference_mode()
def _read(translator: Translator, dataset: PreparedDataset, i: int, latent: Latent) -> tuple["Figure", str]:
    """What D_txt attends to in one item, teacher-forced on the sentence that it decodes."""
    model = translator.model
    ids = model.generate_text(latent, translator.max_text, translator.beam).ids
    sentence = text.decode(ids[0].tolist())
    weights = model.attention(latent, ids)
    assert weights is not None  # check_plots has asked
    attention = weights[0, : len(sentence) + 1, : int(latent.lengths[0])].cpu().numpy()
    if dataset.meta.audio is None:
        return draw_words(dataset.image(i), sentence, attention), sentence
    mel = dataset.mel(i)
    return draw_sound(
        {"mel of the recording": mel}, translator.audio, sentence=sentence, attention=attention.T,
        frames_a_step=-(-len(mel) // attention.shape[1]),
    ), sentence  # fmt: skip
