"""Deep Voice 3 learns a batch by heart; step by step it does what it does at once, and never turns back."""

import pytest
import torch

from tests.comparators.learning import learn
from tests.comparators.speaking import TINY_POSTNET, check_learns, speak, spoken_batch, texts

SIZES = {
    "text_channels": 24, "text_layers": 2, "prenet": [32], "decoder": 32, "layers": 2, "attention": 16, "dropout": 0.0,
    "characters_per_second": 500, "frames_per_step": 2, **TINY_POSTNET,
}  # fmt: skip  # 2 frames a character, of 1 ms


def test_it_learns_a_batch_by_heart():
    check_learns("deepvoice3", 90, **SIZES)


@pytest.fixture(scope="module")
def trained():
    """A little: it doesn't stop."""
    system, _, _ = learn("deepvoice3", 3, spoken_batch(), **SIZES)
    with torch.no_grad():
        system.stop.bias.fill_(-99.0)
    return system


def test_step_by_step_it_gives_what_teacher_forcing_on_its_own_output_does(trained):
    ids, lengths = texts(spoken_batch())
    trained.window = 0
    speech = speak(trained, ids, lengths)
    with torch.no_grad():
        again, _ = trained.follow(trained.encode_text(ids, lengths), speech.mel, speech.lengths, None)
    for one, other in ((speech.mel, again.mel), (speech.stop, again.stop), (speech.alignment, again.alignment)):
        assert torch.allclose(one, other, atol=1e-4)
    assert speech.mel.std() > 0.01


def test_in_synthesis_attention_goes_on_by_less_than_its_window():
    system, _, _ = learn("deepvoice3", 1, spoken_batch(), **{**SIZES, "layers": 1, "window": 2})
    ids, lengths = texts(spoken_batch())
    with torch.no_grad():
        system.stop.bias.fill_(-99.0)
        system.attentions[0].query.weight.normal_(std=9.0)  # so that it would look anywhere
    jumps = speak(system, ids, lengths).alignment.argmax(2).diff(dim=1)
    assert jumps.min() >= 0 and jumps.max() == 1
    system.window = 0
    assert speak(system, ids, lengths).alignment.argmax(2).diff(dim=1).min() < 0
