"""A tiny untrained checkpoint of either kind, whose speech is over at once, so that nothing hits a cap."""

from pathlib import Path

import torch

from skipmodal.audio import AudioConfig
from skipmodal.checkpoint import Checkpoint, save_checkpoint
from skipmodal.image import ImageConfig
from skipmodal.models.system import SkipModal
from skipmodal.recipe import parse_recipe
from skipmodal.tokenizer import Tokenizer
from tests.conftest import TINY

AUDIO = AudioConfig(sample_rate=8000, n_fft=128, win_length=128, hop_length=64, n_mels=8, griffin_lim_iters=3)
FRAMES = 3.0  # that each character lasts in speech of kind tokens


def tiny_checkpoint(folder: Path, kind: str = "tokens", card: str = "card", audio: AudioConfig = AUDIO) -> Path:
    torch.manual_seed(0)
    recipe = parse_recipe({"model": TINY[kind]}, "tiny")
    net = SkipModal(recipe.model, audio, ImageConfig(size=16), Tokenizer())
    if kind == "tokens":
        net.speech_decoder.duration[-1].weight.data.zero_()
        net.speech_decoder.duration[-1].bias.data.fill_(FRAMES).log_()
    else:
        net.speech_decoder.stop.bias.data.fill_(50.0)
    save_checkpoint(folder, Checkpoint(net, recipe, audio, ImageConfig(size=16)), card)
    return folder
