"""D_spch of both kinds, and D_img: teacher forcing against free running, stops, durations, dropout of the past."""

import pytest
import torch
import torch.nn.functional as F

from skipmodal.audio import AudioConfig
from skipmodal.config import VectorModel
from skipmodal.models.decoders import speech as speech_decoders
from skipmodal.models.decoders.image import ImageDecoder
from skipmodal.models.decoders.speech import SpeechDecoder, Transcript
from skipmodal.models.layers import length_mask
from skipmodal.text import SYMBOLS
from tests.models.tiny import AUDIO, latent_of, losses_of, tiny_batch, tiny_model


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


def transcript_of(ids, lengths):
    """Of characters that are read without a doubt, with random states."""
    return Transcript(torch.randn(*ids.shape, 8), ids, lengths, F.one_hot(ids, len(SYMBOLS)).float())


def test_with_its_own_durations_it_says_what_it_says_with_given_ones(monkeypatch):
    decoder = tiny_model().eval().speech_decoder
    transcript = transcript_of(torch.randint(3, 66, (2, 9)), torch.tensor([9, 6]))
    whole = torch.randint(1, 5, (2, 9)) * length_mask(transcript.lengths, 9)
    monkeypatch.setattr(speech_decoders, "align", lambda *_: whole)
    read, _ = decoder._read(transcript)
    monkeypatch.setattr(decoder, "_read", lambda _: (read, whole.float().log()))
    free = decoder.generate(transcript, 99)
    assert free.lengths.tolist() == whole.sum(1).tolist() and not free.capped.any()
    monkeypatch.setattr(decoder.prosody, "forward", lambda *_: decoder.prosody_predictor(read))
    given = decoder(transcript, torch.rand(2, int(free.lengths.max()), AUDIO.n_mels), free.lengths)
    for name in ("mel", "linear", "alignment"):
        torch.testing.assert_close(getattr(given, name), getattr(free, name))
    for most in (7, 0):
        short = decoder.generate(transcript, most)
        assert short.lengths.tolist() == [max(most, 1)] * 2 and short.capped.all()
        assert short.mel.shape[1] == max(most, 1)
    monkeypatch.setattr(decoder, "_read", lambda _: (read, torch.full((2, 9), 1e9)))
    assert decoder.generate(transcript, 40).capped.all()  # endless, and no overflow


def test_in_training_sound_also_follows_from_the_characters_alone():
    decoder = tiny_model(dropout=0.5).speech_decoder
    transcript = transcript_of(torch.randint(3, 66, (1, 9)).expand(200, 9), torch.full((200,), 9))
    alone, _ = decoder.eval()._read(transcript._replace(states=torch.zeros(1, 9, 8).expand(200, 9, 8)))
    told, _ = decoder._read(transcript)
    read, _ = decoder.train()._read(transcript)
    without = [torch.allclose(read[i], alone[i], atol=1e-6) for i in range(200)]
    assert 70 < sum(without) < 130
    assert all(torch.allclose(read[i], told[i], atol=1e-6) for i in range(200) if not without[i])


def test_losses_of_speech_have_gradients_in_bf16(monkeypatch):
    model, batch, lstm = tiny_model(), tiny_batch(0, 3), torch.nn.LSTM.forward

    def whole(self, x, state):  # most processors have no LSTM of 16 bits
        with torch.autocast("cpu", enabled=False):
            return lstm(self, x.float(), tuple(part.float() for part in state))

    monkeypatch.setattr(torch.nn.LSTM, "forward", whole)
    with torch.autocast("cpu", torch.bfloat16):
        losses = losses_of(model, batch)
    assert all(torch.isfinite(loss) and loss.dtype == torch.float32 for loss in losses.values())
    torch.stack([losses[name] for name in ("mel", "duration", "alignment")]).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.speech_decoder.parameters() if p.grad is not None)
    assert model.speech_decoder.aligner.embed.weight.grad.any()


def test_prosody_is_that_of_the_characters_own_frames():
    decoder = tiny_model().eval().speech_decoder
    mel, lengths, durations = torch.rand(1, 20, AUDIO.n_mels), torch.tensor([20]), torch.tensor([[4, 6, 10, 0]])
    before = decoder.prosody(mel, lengths, durations)
    mel[:, 12:18] += 1.0
    after = decoder.prosody(mel, lengths, durations)
    assert before.shape == (1, 4, speech_decoders.PROSODY)
    assert torch.equal(before[:, [0, 1, 3]], after[:, [0, 1, 3]]) and not torch.allclose(before[:, 2], after[:, 2])


def test_what_is_heard_is_no_pupil_of_what_is_predicted():
    model = tiny_model()
    losses_of(model, tiny_batch(), "prosody")["prosody"].backward()
    decoder = model.speech_decoder
    assert all(p.grad is None for p in decoder.prosody.parameters())
    assert all(p.grad is not None for p in decoder.prosody_predictor.parameters())
