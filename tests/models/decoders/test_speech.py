"""The paper's D_spch, and D_img: teacher forcing against free running, stops, dropout of the past."""

import pytest
import torch

from skipmodal.audio import AudioConfig
from skipmodal.config import VectorModel
from skipmodal.models.decoders.image import ImageDecoder
from skipmodal.models.decoders.speech import SpeechDecoder
from tests.models.tiny import latent_of


def paper_decoder(**changes):
    torch.manual_seed(0)
    return SpeechDecoder(VectorModel(**changes), AudioConfig(n_fft=64, win_length=64, hop_length=16)).eval()


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
def test_pictures_of_other_sizes(size):
    decoder = ImageDecoder(VectorModel(), size)
    assert decoder(latent_of(torch.randn(2, 256))).shape == (2, 3, size, size)


def test_steps_equal_one_fused_call():
    decoder = paper_decoder()
    u, mel = torch.randn(2, 256), torch.rand(2, 23, 80)
    fused = decoder(latent_of(u), mel, torch.tensor([23, 20]))
    gru, lstm = decoder._initial_state(u)
    frame = torch.zeros(2, 1, 80)
    for step in range(5):
        out, stop, gru, lstm = decoder._steps(frame, u, gru, lstm)
        target = fused.mel[:, 5 * step : 5 * step + 5]
        torch.testing.assert_close(out[:, : target.shape[1]], target)
        torch.testing.assert_close(stop[:, 0], fused.stop[:, step])
        frame = mel[:, 5 * step + 4 : 5 * step + 5]


def test_fed_its_own_output_is_teacher_forcing_on_it():
    decoder, latent = paper_decoder(), latent_of(torch.randn(2, 256))
    decoder.stop.bias.data.fill_(-100.0)
    free = decoder.generate(latent, 30)
    forced = decoder(latent, free.mel, free.lengths)
    assert free.capped.all()
    torch.testing.assert_close(forced.mel, free.mel)
    torch.testing.assert_close(forced.linear, free.linear)


def test_batch_equals_singles_when_items_stop_at_different_steps():
    decoder, latent = paper_decoder(), latent_of(3 * torch.randn(6, 256))
    decoder.stop.weight.data.mul_(30)
    with torch.no_grad():
        logits = decoder(latent, torch.rand(6, 60, 80), torch.full((6,), 60)).stop
        decoder.stop.bias.data.sub_(logits.quantile(0.85))
    together = decoder.generate(latent, 60)
    assert together.lengths.unique().numel() > 1
    for i, n in enumerate(together.lengths):
        alone = decoder.generate(latent.rows(torch.tensor([i])), 60)
        assert alone.lengths[0] == n
        assert alone.capped[0] == together.capped[i]
        torch.testing.assert_close(alone.linear[0, :n], together.linear[i, :n], rtol=1e-4, atol=1e-5)


def test_with_history_dropout_a_part_of_the_past_is_zeros_in_training_alone():
    decoder = paper_decoder(history_dropout=0.5, prenet_dropout=0, speech_dropout=0)
    latent, mel, lengths = latent_of(torch.randn(1, 256)), torch.rand(1, 200, 80) + 0.1, torch.tensor([200])
    seen = []
    decoder.prenet.register_forward_hook(lambda module, args, out: seen.append(args[0][0]))
    decoder(latent, mel, lengths)
    torch.testing.assert_close(seen[0][1:], mel[0, 4:-5:5])
    decoder.train()(latent, mel, lengths)
    hidden = (seen[1] == 0).all(1)[1:]
    assert 8 < hidden.sum() < 31
    torch.testing.assert_close(seen[1][1:][~hidden], seen[0][1:][~hidden])
