"""Items of a prepared dataset, encoded: what evaluation and retrieval begin with."""

import numpy as np
import torch
from torch import Tensor

from skipmodal.data.prepared import PreparedDataset
from skipmodal.errors import UserError
from skipmodal.models.latent import Latent
from skipmodal.translate import Translator, unit_vectors


def encode_items(translator: Translator, dataset: PreparedDataset, items: np.ndarray, source: str) -> Latent:
    """Items of a dataset -> the model's latent; UserError where the data were not prepared as the model's."""
    _check_settings(translator, dataset, source)
    if source == "image" and translator.image.encoder != "none":
        features = np.stack([dataset.features(i) for i in items]).astype(np.float32)
        with torch.inference_mode():
            return translator.model.encode_image(torch.from_numpy(features).to(translator.device))
    if source == "image":
        return translator.encode([translator.read(dataset.image(i), source) for i in items], source)
    if source == "text":
        return translator.encode([translator.read(dataset.texts(i)[0], source) for i in items], source)
    wavs = [dataset.wav(i).astype(np.float32) / 32768 for i in items]
    return translator.encode([translator.read(wav, source) for wav in wavs], source)


def embed_items(
    translator: Translator, dataset: PreparedDataset, items: np.ndarray, modality: str
) -> tuple[Tensor, list[tuple[int, str]]]:
    """Unit vectors (B, d_k) of items in one modality of theirs, and of each vector its item and text.

    Of a picture or a recording the first text is named; as text, an item has one vector for each of its texts.
    Raises UserError for data that don't fit the model.
    """
    if modality != "text":
        named = [(int(i), dataset.texts(i)[0]) for i in items]
        return unit_vectors(encode_items(translator, dataset, items, modality)), named
    named = [(int(i), text) for i in items for text in dataset.texts(i)]
    return translator.embed([text for _, text in named], "text"), named


def _check_settings(translator: Translator, dataset: PreparedDataset, source: str) -> None:
    """Pictures and recordings must be prepared as the model's were; sentences fit any."""
    image, audio = dataset.meta.image, dataset.meta.audio
    if source == "image" and image is not None and image != translator.image:
        raise UserError(f"{dataset.path}: pictures of {image}, and the model takes {translator.image}")
    if source == "speech" and not translator.audio.fits(audio):
        raise UserError(f"{dataset.path}: recordings of {audio}, and the model takes {translator.audio}")
