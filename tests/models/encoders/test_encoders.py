"""The encoders: sizes, one vector or a token a place, and items that do not depend on their batch."""

import pytest
import torch

from skipmodal.config import TokensModel, VectorModel
from skipmodal.image import ImageConfig
from skipmodal.models.encoders.image import ImageEncoder, ImageTokenEncoder
from skipmodal.models.encoders.speech import SpeechEncoder, SpeechTokenEncoder, warp
from skipmodal.models.encoders.text import TextEncoder, TextTokenEncoder
from skipmodal.tokenizer import Tokenizer

PAPER, TOKENS = VectorModel(), TokensModel(dropout=0)
LENGTHS = torch.tensor([9, 4, 1])


def padded_equals_single(encode, *inputs, lengths):
    together = encode(*inputs, lengths)
    for i, n in enumerate(lengths):
        alone = encode(*(x[i : i + 1, :n] for x in inputs), lengths[i : i + 1])
        tokens = int(alone.lengths[0])
        assert tokens == together.lengths[i] == alone.e.shape[1]
        torch.testing.assert_close(together.e[i, :tokens], alone.e[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [TextEncoder, TextTokenEncoder])
def test_texts_of_a_padded_batch_equal_single_ones(kind):
    torch.manual_seed(0)
    padded_equals_single(kind(PAPER).eval(), torch.randint(1, 66, (3, 9)), lengths=LENGTHS)


@pytest.mark.parametrize("frames", [[31, 16, 3], [32, 29, 1]])  # both parities at both strides
def test_recordings_of_a_padded_batch_equal_single_ones(frames):
    torch.manual_seed(0)
    for speech in (SpeechEncoder(PAPER, 80).eval(), SpeechTokenEncoder(TOKENS, 80, 0.2).eval()):
        padded_equals_single(speech, torch.rand(3, max(frames), 80), lengths=torch.tensor(frames))


def test_text_encoder_depends_on_order():
    torch.manual_seed(0)
    encoder, ids = TextEncoder(PAPER).eval(), torch.randint(3, 66, (1, 8))
    assert not torch.allclose(encoder(ids, torch.tensor([8])).e, encoder(ids.flip(1), torch.tensor([8])).e)


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
def test_pictures_of_other_sizes(size):
    e, lengths, rate, *_ = ImageEncoder(VectorModel(embedding=100))(torch.rand(2, 3, size, size))
    assert e.shape == (2, 1, 100) and lengths.tolist() == [1, 1] and rate == 0
    encoder = ImageTokenEncoder(TokensModel(embedding=100), ImageConfig(size=size), Tokenizer())
    e, lengths, rate, suggested, _ = encoder(torch.rand(2, 3, size, size))
    tokens = (size // 16) ** 2
    assert e.shape == (2, tokens, 100) and lengths.tolist() == [tokens] * 2 and rate == 0 and suggested is None


def test_tokens_are_a_character_and_two_frames():
    text = TextTokenEncoder(TOKENS)(torch.randint(3, 66, (3, 9)), LENGTHS)
    assert text.e.shape == (3, 9, 512) and text.lengths.tolist() == [9, 4, 1] and text.rate == 1
    speech = SpeechTokenEncoder(TOKENS, 80, 0.2)(torch.rand(2, 21, 80), torch.tensor([21, 8]))
    assert speech.e.shape == (2, 11, 512) and speech.lengths.tolist() == [11, 4]
    assert speech.rate == pytest.approx(0.2 * 2)


def test_places_of_a_picture_differ():
    torch.manual_seed(0)
    encoder = ImageTokenEncoder(TOKENS, ImageConfig(size=32), Tokenizer()).eval()
    e = encoder(torch.zeros(1, 3, 32, 32)).e[0]  # the same everywhere but at the edges
    assert not torch.allclose(e[0], e[3]) and encoder.places.shape == (4, 512)


def test_a_warped_recording_is_the_same_at_another_speed_and_height():
    torch.manual_seed(0)
    lengths, frames, bands = torch.tensor([60, 41, 1]), torch.arange(60.0)[:, None], torch.arange(80.0)
    mel = (frames + 100 * bands).expand(3, -1, -1).clone()
    unchanged, same = warp(mel, lengths, 0.0)
    torch.testing.assert_close(unchanged, mel.minimum(mel[range(3), lengths - 1][:, None]), rtol=0, atol=0.01)
    assert torch.equal(same, lengths)
    warped, others = warp(mel, lengths, 0.2)
    assert warped.shape == (3, int(others.max()), 80) and others[2] == 1
    for item, (before, after) in enumerate(zip(lengths.tolist(), others.tolist(), strict=True)):
        assert 0.8 * before - 1 <= after <= 1.2 * before + 1
        along, up = warped[item, :after, 0], warped[item, 0]
        torch.testing.assert_close(
            along, (torch.arange(after) * before / after).clamp(max=before - 1), rtol=0, atol=0.01
        )
        height = up[1] / 100  # of a band above, in bands of before: as much at every band, up to the last
        assert 1 / 1.2 <= height <= 1 / 0.8
        torch.testing.assert_close(up, 100 * (bands * height).clamp(max=79), rtol=1e-3, atol=0.5)
    _, speeds = warp(mel, torch.full((3,), 60), 0.2)
    heights = warp(mel, torch.full((3,), 60), 0.2)[0][:, 0, 1]
    assert len(set(speeds.tolist())) == len(set(heights.tolist())) == 3


def test_recordings_are_warped_in_training_alone():
    torch.manual_seed(0)
    encoder = SpeechTokenEncoder(TOKENS.model_copy(update={"speech_warp": 0.2}), 80, 0.2)
    recordings = torch.rand(4, 50, 80), torch.full((4,), 50)
    assert encoder(*recordings).lengths.tolist() != [25] * 4
    assert encoder.eval()(*recordings).lengths.tolist() == [25] * 4
