"""Tacotron learns a batch by heart, and attends to valid characters alone."""

import pytest
import torch

from skipmodal.errors import UserError
from tests.comparators.learning import learn
from tests.comparators.speaking import TINY_POSTNET, check_learns

SIZES = {
    "text_channels": 32, "text_banks": 2, "prenet": [32], "prenet_dropout": 0.0, "attention": 32, "decoder": 128,
    "frames_per_step": 2, **TINY_POSTNET,
}  # fmt: skip


def test_it_learns_a_batch_by_heart():
    check_learns("tacotron", 120, **SIZES)


def test_what_it_has_no_part_for_is_refused_in_a_line():
    system, _, _ = learn("tacotron", 1, **SIZES)
    with pytest.raises(UserError, match="a model of kind tacotron hears no speech"):
        system.encode_speech(torch.zeros(1, 9, 8), torch.tensor([9]))
