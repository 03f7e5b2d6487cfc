"""Show, Attend and Tell learns captions by heart; its penalty and its gate are those of the paper."""

from dataclasses import replace

import pytest
import torch

from skipmodal.recipe import parse_recipe
from skipmodal.training.self_critical import SelfCritical
from skipmodal.training.step import TrainingStep
from tests.comparators.captions import (
    CAPTIONS,
    OWNERS,
    SIZES,
    WORDS,
    attention_after_another_token,
    batch_of,
    first_step_elsewhere,
    learns,
    untrained,
)
from tests.comparators.learning import learn
from tests.models.tiny import AUDIO

BATCH = batch_of((49, 1280))


def test_it_learns_captions_by_heart():
    learns("sat", 80, BATCH)


def test_every_place_is_to_be_looked_at_once():
    system = untrained("sat", BATCH)
    with torch.no_grad():
        outputs = system(BATCH, {"text_from_image", "coverage"})
        (written,) = outputs.written["text_from_image"]
        expected, characters = 0.0, 0
        for row, (target, weights) in enumerate(zip(written.target, written.attention[:, 0], strict=True)):
            steps = int((target != 0).sum())
            torch.testing.assert_close(weights[:steps].sum(1), torch.ones(steps))
            expected += float(((1 - weights[:steps].sum(0)) ** 2).sum())
            characters += len(CAPTIONS[row]) + 1
    assert outputs.own["coverage"].item() == pytest.approx(expected / characters, rel=1e-4)
    assert "coverage" not in system(BATCH, {"text_from_image"}).own


def test_attention_follows_what_was_said_and_chooses_what_is_seen():
    system = untrained("sat", BATCH)
    decoder = system.text_decoder
    with torch.no_grad():
        latent = system.encode_image(BATCH.features)
        along, elsewhere = attention_after_another_token(decoder, latent, BATCH)
        torch.testing.assert_close(elsewhere[:, :, 1], along[:, :, 1])  # the state is one token late
        assert (elsewhere[:, :, 2] - along[:, :, 2]).abs().max() > 1e-6
        # What is seen is what was chosen: the same state with the weights of other places reads something else.
        y, weights, moved = first_step_elsewhere(decoder, latent, BATCH)
        assert weights.std(1).min() > 1e-4  # they are not uniform
        assert (moved - y).abs().max() > 1e-5


def test_a_closed_gate_hides_the_picture():
    system = untrained("sat", BATCH)
    decoder, target = system.text_decoder, BATCH.tokens[:3]
    torch.nn.init.constant_(decoder.gate.bias, -1e4)
    torch.nn.init.zeros_(decoder.start.weight)  # nor does the first state tell of it
    with torch.no_grad():
        logits = [
            decoder(system.encode_image(features), target, OWNERS[:3]).logits
            for features in (BATCH.features, 1 - BATCH.features)
        ]
        torch.testing.assert_close(*logits)
        decoder.gate.bias.zero_()
        assert not torch.allclose(decoder(system.encode_image(BATCH.features), target, OWNERS[:3]).logits, logits[0])


def test_captions_that_it_draws_are_rewarded():
    system = untrained("sat", BATCH)
    references = [list(CAPTIONS[:2]), [CAPTIONS[2]], [CAPTIONS[3]]]
    loss = parse_recipe({"model": {"kind": "sat"}, "loss": {"self_critical": 1.0}}, "sat").loss
    step = TrainingStep(system, AUDIO, loss, SelfCritical(references, system.tokenizer, 10))
    losses = step(replace(BATCH, references=tuple(references)))
    assert losses.keys() == {"text_from_image", "coverage", "self_critical", "reward"}
    assert losses["self_critical"].isfinite() and losses["self_critical"].requires_grad


def test_pixels_go_through_convolutions_of_its_own():
    pixels = replace(BATCH, features=None, images=torch.rand(3, 3, 16, 16) * 2 - 1)
    system, first, last = learn("sat", 20, pixels, words=WORDS, image_channels=[8, 16], **SIZES)
    assert last < first and system.encode_image(pixels.images).u.shape == (3, 16, 24)
