"""A tiny model and a batch of either kind, and what a test asks of them."""

import torch
from torch.nn.utils.rnn import pad_sequence

from skipmodal import text
from skipmodal.audio import AudioConfig
from skipmodal.config import LossConfig, TokensLoss, VectorLoss
from skipmodal.data.batches import Batch
from skipmodal.image import ImageConfig
from skipmodal.models.latent import Latent
from skipmodal.models.system import SkipModal
from skipmodal.recipe import parse_recipe
from skipmodal.tokenizer import Tokenizer
from skipmodal.training.losses import compute_losses
from tests.conftest import TINY

AUDIO = AudioConfig(n_fft=64, win_length=64, hop_length=16, n_mels=8)
KINDS = ("vector", "tokens")
_LOSSES: dict[str, type[LossConfig]] = {"vector": VectorLoss, "tokens": TokensLoss}
# All losses of a kind that a pass of the tiny model, which has no refiner, gives without drawing anything.
_DRAWN = {"self_critical", "flow", "back_translation"}
WANTED = {kind: {term.name for term in loss().terms()} - _DRAWN for kind, loss in _LOSSES.items()}
_CHANGES: dict[str, dict] = {"vector": {}, "tokens": {"frames_per_step": 3, "characters_per_second": 400}}


def tiny_model(kind: str = "tokens", words: tuple[str, ...] = (), **changes) -> SkipModal:
    torch.manual_seed(0)
    config = parse_recipe({"model": {**TINY[kind], **_CHANGES[kind], **changes}}, "tiny").model
    return SkipModal(config, AUDIO, ImageConfig(size=16), Tokenizer(words))


def make_batch(ids, lengths, images, mel, mel_lengths, wav, tokens=None, owners=None) -> Batch:
    """Pictures with a text each unless `owners` says otherwise, tokens that are characters unless they are given."""
    owners = torch.arange(len(images)) if owners is None else owners
    return Batch([], ids, lengths, ids if tokens is None else tokens, owners, images, mel, mel_lengths, wav)


def tiny_batch(n_a: int = 2, n_b: int = 3) -> Batch:
    torch.manual_seed(1)
    lengths = torch.tensor([9, 5, 7, 9, 3][: n_a + n_b])
    ids = torch.randint(3, 66, (n_a + n_b, 9)) * (torch.arange(9) < lengths[:, None])
    frames = torch.tensor([22, 13, 6][:n_b])
    mel = torch.rand(n_b, 22, 8) * (torch.arange(22) < frames[:, None])[:, :, None] if n_b else torch.zeros(0)
    images = torch.rand(n_a, 3, 16, 16) * 2 - 1 if n_a else torch.zeros(0)
    wav = torch.rand(n_b, 22 * 16 - 1) if n_b else torch.zeros(0)
    return make_batch(ids, lengths, images, mel, frames, wav)


def losses_of(model: SkipModal, batch: Batch, *wanted: str) -> dict[str, torch.Tensor]:
    """Those named, or all of the kind."""
    names = set(wanted) or WANTED["tokens" if model.attends else "vector"]
    linear = batch.linear(AUDIO) if len(batch.mel) else None
    return compute_losses(model(batch, names), batch, linear, names)


def reached(model: SkipModal, loss: torch.Tensor) -> set[str]:
    """Names of the blocks to which a loss sends a gradient; of the bottleneck its two halves."""
    model.zero_grad()
    loss.backward(retain_graph=True)
    blocks = {**dict(model.named_children()), **dict(model.bottleneck.named_children())}
    del blocks["bottleneck"]
    return {
        name for name, block in blocks.items()
        if any(p.grad is not None and p.grad.abs().max() > 0 for p in block.parameters())
    }  # fmt: skip


def latents(model: SkipModal, batch: Batch):
    """Of each modality, a function from a part of the batch to its latent."""
    n_t = len(batch.owners)
    yield "image", lambda i: model.encode_image(batch.images[i])
    yield "speech", lambda i: model.encode_speech(batch.mel[i], batch.mel_lengths[i])
    yield "text", lambda i: model.encode_text(batch.ids[:n_t][i], batch.lengths[:n_t][i])


def latent_of(u: torch.Tensor) -> Latent:
    """Of vectors (B, d_k), one token each."""
    return Latent(u[:, None], u[:, None], torch.ones(len(u), dtype=torch.long))


def characters(*sentences: str) -> torch.Tensor:
    return pad_sequence([torch.tensor(text.encode(each)) for each in sentences], batch_first=True)


def tokens_of(tokenizer: Tokenizer, *sentences: str) -> torch.Tensor:
    return pad_sequence([torch.tensor(tokenizer.encode(each)) for each in sentences], batch_first=True)
