"""D_spch of tokens: durations, prosody, what it is told in training and in synthesis."""

import torch
import torch.nn.functional as F

from skipmodal.models import system
from skipmodal.models.decoders import timed
from skipmodal.models.decoders.speech import Transcript
from skipmodal.models.layers import length_mask
from skipmodal.text import SYMBOLS
from tests.models.tiny import AUDIO, losses_of, tiny_batch, tiny_model


def transcript_of(ids, lengths):
    """Of characters that are read without a doubt, with random states."""
    return Transcript(torch.randn(*ids.shape, 8), ids, lengths, F.one_hot(ids, len(SYMBOLS)).float())


def test_with_its_own_durations_it_says_what_it_says_with_given_ones(monkeypatch):
    decoder = tiny_model().eval().speech_decoder
    transcript = transcript_of(torch.randint(3, 66, (2, 9)), torch.tensor([9, 6]))
    whole = torch.randint(1, 5, (2, 9)) * length_mask(transcript.lengths, 9)
    monkeypatch.setattr(timed, "align", lambda *_: whole)
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
    assert before.shape == (1, 4, timed.PROSODY)
    assert torch.equal(before[:, [0, 1, 3]], after[:, [0, 1, 3]]) and not torch.allclose(before[:, 2], after[:, 2])


def test_what_is_heard_is_no_pupil_of_what_is_predicted():
    model = tiny_model()
    losses_of(model, tiny_batch(), "prosody")["prosody"].backward()
    decoder = model.speech_decoder
    assert all(p.grad is None for p in decoder.prosody.parameters())
    assert all(p.grad is not None for p in decoder.prosody_predictor.parameters())


@torch.no_grad()
def test_a_round_trip_aims_at_what_is_said_of_the_caption():
    decoder = tiny_model().eval().speech_decoder
    ids, lengths = torch.randint(3, 66, (2, 9)), torch.tensor([9, 6])
    caption = transcript_of(ids, lengths)
    seen = caption._replace(states=torch.randn(2, 9, 8))
    itself, aim = decoder.imitate(caption, caption), decoder.imitate(seen, caption)
    spoken = decoder.generate(caption, 999)
    assert aim.lengths.tolist() == spoken.lengths.tolist()
    for each in (itself, aim):
        torch.testing.assert_close(each.target, spoken.mel)
    torch.testing.assert_close(itself.mel, itself.target)
    torch.testing.assert_close(itself.durations, aim.target_durations)
    assert not torch.allclose(aim.mel, aim.target) and not torch.allclose(aim.durations, aim.target_durations)


def test_several_processes_share_the_round_trips_of_one(monkeypatch):
    model, batch = tiny_model(), tiny_batch(n_a=2)
    monkeypatch.setattr(system, "ROUND_TRIPS", 2)
    assert len(model(batch, {"round_trip"}).imitation.lengths) == 2
    monkeypatch.setattr(system, "processes", lambda: 2)
    assert len(model(batch, {"round_trip"}).imitation.lengths) == 1
