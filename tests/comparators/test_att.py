"""Semantic attention learns captions by heart, from words that the image encoder's classifier finds likeliest."""

from dataclasses import replace

import pytest
import torch

from skipmodal.errors import UserError
from skipmodal.features import kinds
from skipmodal.image import ImageConfig
from skipmodal.models.latent import Suggested
from skipmodal.recipe import parse_recipe
from skipmodal.systems import build
from skipmodal.text import SYMBOLS
from skipmodal.tokenizer import Tokenizer
from tests.comparators.captions import LITE0, OWNERS, PLAIN, WORDS, batch_of, learns, untrained
from tests.models.tiny import AUDIO

BATCH = batch_of((49, 1280))
SIZES = {**PLAIN, "attributes": 2}
DOG, CAT = (len(SYMBOLS) + WORDS.index(word) for word in (" dog", " cat"))


def test_it_learns_captions_by_heart():
    learns("att", 150, BATCH, sizes=SIZES)


def test_attributes_are_the_likeliest_words_that_captions_use():
    encoder = untrained("att", BATCH, sizes=SIZES).image_encoder
    sure = next(number for number, words in enumerate(kinds.kinds()) if "cat" in words)
    torch.nn.init.zeros_(encoder.classifier.weight)
    encoder.classifier.bias.data = 10.0 * (torch.arange(kinds.COUNT) == sure)
    latent = encoder(BATCH.features)
    assert latent.suggested.tokens[:, :, 0].tolist() == [[CAT, DOG]] * 3
    assert (latent.suggested.likely[:, 0] > 0.9).all()
    assert not encoder.classifier.weight.requires_grad
    torch.testing.assert_close(latent.u[:, 0], BATCH.features.mean(1))


def test_what_is_read_and_what_is_written_attend_to_them():
    system = untrained("att", BATCH, sizes=SIZES)
    decoder = system.text_decoder
    with torch.no_grad():
        latent = system.encode_image(BATCH.features)
        written = decoder(latent, BATCH.tokens, OWNERS)
        weights = written.attention[:, 0].unflatten(2, (2, 2))
        torch.testing.assert_close(weights.sum(3), torch.ones(weights.shape[:3]))
        tokens, likely = latent.suggested
        latent = replace(latent, suggested=Suggested(tokens.flip(1), likely.flip(1)))  # their order is none
        again = decoder(latent, BATCH.tokens, OWNERS)
        torch.testing.assert_close(again.logits, written.logits)
        latent = replace(latent, suggested=Suggested(torch.full_like(tokens, DOG), likely))
        for gain, other in ((decoder.gain_in, decoder.gain_out), (decoder.gain_out, decoder.gain_in)):
            gain.fill_(1.0)
            other.zero_()
            assert not torch.allclose(decoder(latent, BATCH.tokens, OWNERS).logits, written.logits)
        decoder.gain_out.zero_()
        decoder.gain_in.zero_()
        plain = decoder(latent, BATCH.tokens, OWNERS).logits
        latent = replace(latent, suggested=Suggested(torch.full_like(tokens, CAT), likely))
        torch.testing.assert_close(decoder(latent, BATCH.tokens, OWNERS).logits, plain)


def test_attention_is_undecided_at_first():
    torch.manual_seed(0)
    config = parse_recipe({"model": {"kind": "att", **SIZES, "width": 256}}, "att").model
    system = build(config, AUDIO, LITE0, Tokenizer(WORDS)).eval()
    with torch.no_grad():
        written = system.text_decoder(system.encode_image(BATCH.features), BATCH.tokens, OWNERS)
    assert (written.attention[:, 0].unflatten(2, (2, 2)).amax(3).mean((0, 1)) < 0.8).all()  # 0.5 is undecided


def test_attention_is_to_reach_all_and_to_be_sure():
    system = untrained("att", BATCH, sizes=SIZES)
    with torch.no_grad():
        outputs = system(BATCH, {"text_from_image", "spread"})
        (written,) = outputs.written["text_from_image"]
        expected = 0.0
        for target, weights in zip(written.target, written.attention[:, 0], strict=True):
            steps = int((target != 0).sum())
            for half in weights[:steps].split(2, 1):
                expected += float(half.sum(0).norm() + half.sqrt().sum(1).square().sum())
    assert outputs.own["spread"].item() == pytest.approx(expected / int(written.spans.sum()), rel=1e-3)


@pytest.mark.parametrize(
    ("image", "sizes", "message"),
    [
        (ImageConfig(size=16), SIZES, "the features are of no network that names things"),
        (ImageConfig(size=16, encoder="regions", regions=(3, 4)), SIZES, "features are of no network"),
        (ImageConfig(encoder="efficientnet_lite0"), {**SIZES, "attributes": 9}, "attributes=9: .* raise model.words"),
    ],
)
def test_what_has_no_attributes_is_refused(image, sizes, message):
    with pytest.raises(UserError, match=message):
        untrained("att", BATCH, image, sizes)
