"""The Recurrent Fusion Network learns captions by heart; its networks hear of each other and name the words."""

import pytest
import torch

from skipmodal.errors import UserError
from skipmodal.image import ImageConfig
from skipmodal.text import SYMBOLS
from tests.comparators.captions import (
    LITE0,
    OWNERS,
    SIZES,
    WORDS,
    attention_after_another_token,
    batch_of,
    first_step_elsewhere,
    learns,
    untrained,
)

LITES = ImageConfig(size=16, encoder="efficientnet_lites")
BATCH = batch_of((147, 1280))
STEPS = {"steps_1": 3, "steps_2": 2}


def test_it_learns_captions_by_heart():
    learns("rfnet", 150, BATCH, LITES, **STEPS)


def test_networks_hear_of_each_other_from_the_second_step_on():
    fusion = untrained("rfnet", BATCH, LITES, **STEPS).image_encoder
    other = BATCH.features.clone()
    other[:, 98:] = other[:, 98:].flip(0)  # the last network sees other pictures
    with torch.no_grad():
        latent, parts = fusion(BATCH.features)
        _, again = fusion(other)
    assert [tuple(part.shape[:2]) for part in parts] == [(3, 3)] * 3 + [(3, 2)]
    assert latent.u is parts[-1] and latent.z.shape == latent.u.shape
    for network in range(3):  # all begin by hearing how each starts, from the mean of its grid
        assert (parts[network] != again[network]).any()
    fusion.start[2].weight.data.zero_()
    with torch.no_grad():
        _, parts = fusion(BATCH.features)
        _, again = fusion(other)
    for network in range(2):
        torch.testing.assert_close(again[network][:, 0], parts[network][:, 0])
        assert (again[network][:, 1] != parts[network][:, 1]).any()


def test_the_second_stage_sees_all_thoughts_of_the_first():
    fusion = untrained("rfnet", BATCH, LITES, **STEPS).image_encoder
    with torch.no_grad():
        _, parts = fusion(BATCH.features)
        for review in fusion.review:
            hook = review.register_forward_hook(lambda _, given, seen: (2 * seen[0], seen[1]))
            _, again = fusion(BATCH.features)
            hook.remove()
            for one, other in zip(parts[:-1], again[:-1], strict=True):
                torch.testing.assert_close(one, other)
            assert (parts[-1] - again[-1]).abs().max() > 1e-4


def test_the_decoders_attention_follows_what_was_said():
    system = untrained("rfnet", BATCH, LITES, **STEPS)
    decoder = system.text_decoder
    with torch.no_grad():
        latent = system.encode_image(BATCH.features)
        along, elsewhere = attention_after_another_token(decoder, latent, BATCH)
        torch.testing.assert_close(elsewhere[:, :, 1], along[:, :, 1])  # the state is one token late
        assert (elsewhere[:, :, 2] != along[:, :, 2]).any()
        y, _, moved = first_step_elsewhere(decoder, latent, BATCH)
        assert (moved != y).any()  # what it reads is what it attends to


def test_each_stage_names_the_words_of_all_captions_of_a_picture():
    system = untrained("rfnet", BATCH, LITES, **STEPS)
    with torch.no_grad():
        latent, thoughts = system.look(BATCH.features)
        expected = []
        for picture in range(3):
            said = {int(t) for row in BATCH.tokens[picture == OWNERS] for t in row if t >= len(SYMBOLS)}
            for score, part in zip(system.words, thoughts, strict=True):
                scores = score(part)[picture].amax(0)
                rest = [i for i in range(len(scores)) if i not in said]
                margins = [(1 - (scores[i] - scores[rest])).clamp(min=0).sum() for i in said]
                expected.append(torch.stack(margins).sum() / len(scores))
        loss = system(BATCH, {"discriminative"}).own["discriminative"]
    assert len(expected) == 12 and len(system.words[0].bias) == len(SYMBOLS) + len(WORDS)
    torch.testing.assert_close(loss, torch.stack(expected).mean())
    assert latent.seen.shape == (3, 1280)


def test_one_network_is_not_enough():
    with pytest.raises(UserError, match="fuses several networks; prep --encoder efficientnet_lites"):
        untrained("rfnet", BATCH, LITE0, SIZES)
