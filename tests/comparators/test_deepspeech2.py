"""Deep Speech 2 learns a batch by heart, refuses what it can't, and does not hear its padding."""

import pytest
import torch

from skipmodal import text
from skipmodal.errors import UserError
from tests.comparators.learning import batch_saying, learn

SIZES = {"channels": 4, "width": 24, "layers": 2, "dropout": 0.0}


def test_it_learns_a_batch_by_heart():
    batch = batch_saying("abc", "ba", "c")
    system, first, last = learn("deepspeech2", 120, batch, **SIZES)
    assert last < 0.1 * first
    with torch.no_grad():
        found = system.generate_text(system.encode_speech(batch.mel, batch.mel_lengths), 20)
        assert [text.decode(ids) for ids in found.ids.tolist()] == ["abc", "ba", "c"]
        assert not found.capped.any()
        batch.mel[1, batch.mel_lengths[1] :] = 9.0
        again = system.generate_text(system.encode_speech(batch.mel, batch.mel_lengths), 20)
        assert torch.equal(again.ids, found.ids)
        # An item is the same alone as in a batch.
        both = system.encode_speech(batch.mel, batch.mel_lengths)
        frames = int(batch.mel_lengths[1])
        alone = system.encode_speech(batch.mel[1:2, :frames], batch.mel_lengths[1:2])
        torch.testing.assert_close(both.mean[1:2], alone.mean)
        short = system.generate_text(system.encode_speech(batch.mel, batch.mel_lengths), 3)
    assert short.capped.tolist() == [True, False, False] and text.decode(short.ids[0].tolist()) == "ab"


def test_what_it_has_no_part_for_is_refused_in_a_line():
    system, _, _ = learn("deepspeech2", 1, **SIZES)
    with pytest.raises(UserError, match="a model of kind deepspeech2 reads no images"):
        system.encode_image(torch.zeros(1, 3, 16, 16))
    with pytest.raises(UserError, match="a model of kind deepspeech2 does not speak"):
        system.generate_speech(None, 10, 10)
