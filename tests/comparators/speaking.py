"""What the tests of the comparators that speak ask of all of them."""

import torch

from tests.comparators.learning import learn
from tests.models.tiny import tiny_batch

TINY_POSTNET = {"postnet_channels": 8, "postnet_banks": 2}
CAP = 40  # frames


def spoken_batch():
    """A batch of four letters that each have a sound of their own, for two frames; odd recordings lack the last."""
    batch = tiny_batch()
    batch.ids = torch.where(batch.ids > 0, 3 + batch.ids % 4, 0)
    ids, lengths = texts(batch)
    batch.mel_lengths = 2 * lengths - lengths % 2
    sounds = torch.rand(66, 8).repeat_interleave(2, 0).view(66, 2, 8)
    frames = torch.arange(2 * ids.shape[1]) < batch.mel_lengths[:, None]
    batch.mel = sounds[ids].flatten(1, 2) * frames[:, :, None]
    batch.wav = batch.wav[:, : batch.mel.shape[1] * 16 - 1]
    return batch


def texts(batch):
    first = len(batch.owners)
    return batch.ids[first:], batch.lengths[first:]


def speak(system, ids, lengths, cap=CAP):
    with torch.no_grad():
        return system.generate_speech(system.encode_text(ids, lengths), cap, 20)[0]


def check_learns(kind, steps, **settings):
    """That it learns a batch by heart, stops where its recordings end, and does not see padding: system, speech.

    And that a guide leads its attention along the letters.
    """
    batch = spoken_batch()
    system, first, last = learn(kind, steps, batch, loss={"guided_attention": 1.0}, **settings)
    assert last < 0.2 * first
    ids, lengths = texts(batch)
    speech = speak(system, ids, lengths)
    r = system.frames_a_step
    assert speech.lengths.tolist() == [-(-frames // r) * r for frames in batch.mel_lengths.tolist()]
    assert not speech.capped.any() and torch.equal(speech.steps * r, speech.lengths)
    for mel, made, frames in zip(batch.mel, speech.mel, batch.mel_lengths, strict=True):
        assert (mel[:frames] - made[:frames]).abs().mean() < 0.1  # 0.25 of a constant
    assert speech.linear.shape == (*speech.mel.shape[:2], 33)
    assert_attends(speech, lengths)
    cut = speak(system, ids, lengths, cap=3 * r)
    assert cut.capped.tolist() == (speech.steps > 3).tolist() and cut.lengths.max() == 3 * r
    check_padding(system, batch, speech)
    return system, batch, speech


def assert_attends(speech, lengths):
    for weights, steps, length in zip(speech.alignment, speech.steps, lengths, strict=True):
        assert torch.allclose(weights[:steps, :length].sum(1), torch.ones(steps))
        assert not weights[:, length:].any()
        # Each step speaks a letter, and looks at it: nearly all do.
        assert (weights[:steps].argmax(1) - torch.arange(steps)).abs().float().mean() < 0.5


def check_padding(system, batch, speech):
    """Alone, among others, or with more padding an item gives the same; nor do losses see the recordings' padding."""
    ids, lengths = texts(batch)
    alone = speak(system, ids[2:, : lengths[2]], lengths[2:])
    assert alone.lengths.item() == speech.lengths[2]
    frames = int(speech.lengths[2])
    assert torch.allclose(alone.mel[0, :frames], speech.mel[2, :frames], atol=1e-4)
    assert torch.allclose(alone.linear[0, :frames], speech.linear[2, :frames], atol=1e-4)
    wanted = {"mel", "linear", "stop", "guided_attention", "coarse"}
    system.train()  # the statistics of a batch, too
    results = []
    for value in (0.0, 9.0):
        for row, frames in enumerate(batch.mel_lengths):
            batch.mel[row, frames:] = value
        torch.manual_seed(0)
        outputs = system(batch, wanted)
        spoken = outputs.spoken
        valid = torch.arange(batch.mel.shape[1]) < batch.mel_lengths[:, None]
        steps = torch.arange(spoken.stop.shape[1]) < spoken.steps[:, None]
        results.append((spoken.mel[valid], spoken.linear[valid], spoken.stop[steps], *outputs.own.values()))
    system.eval()
    for before, after in zip(*results, strict=True):
        assert torch.allclose(before, after, atol=1e-4)
