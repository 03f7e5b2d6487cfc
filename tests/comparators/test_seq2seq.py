"""Multi-head attention over a pyramid learns a batch by heart, does not hear padding, and searches what it learned."""

from dataclasses import replace

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from skipmodal import text
from skipmodal.errors import UserError
from skipmodal.recipe import parse_recipe
from skipmodal.text import BOS, EOS, PAD
from skipmodal.tokenizer import Tokenizer
from tests.comparators.learning import batch_saying, learn

SIZES = {
    "width": 16, "layers": 2, "halvings": 1, "decoder": 24, "heads": 2, "characters_per_second": 400.0, "dropout": 0.0
}  # fmt: skip
WORDS = (" dog", " cat")
SAID = ("a dog", "the cat", "oh")


@pytest.fixture(scope="module")
def learned():
    """A system that knows its batch, and the batch."""
    batch, tokenizer = batch_saying(*SAID), Tokenizer(WORDS)
    tokens = [torch.tensor(tokenizer.encode(text.decode(row))) for row in batch.ids.tolist()]
    batch.tokens = pad_sequence(tokens, batch_first=True)
    system, first, last = learn("seq2seq", 80, batch, words=WORDS, **SIZES)
    assert last < 0.05 * first
    return system, batch


@pytest.mark.parametrize("beam", [1, 3])
def test_it_learns_a_batch_by_heart(learned, beam):
    system, batch = learned
    found = system.generate_text(system.encode_speech(batch.mel, batch.mel_lengths), 20, beam)
    assert [text.decode(ids) for ids in found.ids.tolist()] == list(SAID)
    assert not found.capped.any()


@torch.no_grad()
def test_it_does_not_hear_padding(learned):
    system, batch = learned
    latent = system.encode_speech(batch.mel, batch.mel_lengths)
    assert latent.lengths.tolist() == [11, 7, 3] and latent.rate == pytest.approx(400 * 16 / 16000 * 2)
    noisy = batch.mel.clone()
    noisy[1, 13:] = 9.0
    assert torch.equal(system.encode_speech(noisy, batch.mel_lengths).u, latent.u)
    alone = system.encode_speech(noisy[1:2, :13], batch.mel_lengths[1:2])
    torch.testing.assert_close(alone.u, latent.u[1:2, :7])
    attention = system.attention(latent, batch.ids[2:])
    assert attention.shape == (3, 9, 11)
    torch.testing.assert_close(attention.sum(2), torch.ones(3, 9))
    assert attention[1, :, 7:].abs().max() == 0 and attention[2, :, 3:].abs().max() == 0


@torch.no_grad()
def test_search_takes_the_steps_of_training(learned):
    system, batch = learned
    latent = system.encode_speech(batch.mel, batch.mel_lengths)
    written = system.text_decoder(latent, batch.tokens[2:])
    logits = written.logits.index_fill(2, torch.tensor([PAD, BOS]), -torch.inf)
    each = logits.log_softmax(2).gather(2, written.target[:, :, None])[:, :, 0].masked_fill(written.target == PAD, 0)
    found = system.generate_text(latent, 20)
    torch.testing.assert_close(found.log_probability, each.sum(1))
    assert (written.target == EOS).sum(1).tolist() == [1, 1, 1]


@torch.no_grad()
def test_the_next_step_sees_what_was_attended_to(learned):
    system, batch = learned
    latent = system.encode_speech(batch.mel, batch.mel_lengths)
    advance, (h, c, context) = system.text_decoder.begin(latent)
    start, tokens = torch.zeros(3, 1, dtype=torch.long), torch.full((3, 1), BOS)
    first, state = advance(tokens, start, (h, c, context))
    assert state[2].abs().max() > 0
    other, _ = advance(tokens, start, (h, c, context + 1))
    assert (first - other).abs().max() > 1e-3


@torch.no_grad()
def test_attention_goes_along_the_recording_and_chooses_what_is_heard(learned):
    system, batch = learned
    latent = system.encode_speech(batch.mel, batch.mel_lengths)
    where = system.attention(latent, batch.ids[2:]).argmax(2)
    assert where[:2, 0].max() <= 1 and (where[:2].amax(1) > latent.lengths[:2] / 2).all()
    # In another order its places, all valid, are another recording, and so they are with all but the first louder.
    u, start, tokens = latent.u, torch.zeros(3, 1, dtype=torch.long), torch.full((3, 1), BOS)
    louder = torch.where(torch.arange(11)[:, None] > 0, 3 * u, u)
    written = []
    for heard in (u, u.flip(1), louder):
        advance, state = system.text_decoder.begin(replace(latent, u=heard))
        written.append(advance(tokens, start, state)[0][0])
    assert all((written[0] - other).abs().max() > 1e-2 for other in written[1:])


def test_sizes_that_do_not_fit_are_refused_in_a_line():
    with pytest.raises(UserError, match=r"decoder \(10\) must be a multiple of heads \(4\)"):
        parse_recipe({"model": {"kind": "seq2seq", "decoder": 10}}, "r")
    with pytest.raises(UserError, match=r"halvings \(4\) can't be more than layers \(3\)"):
        parse_recipe({"model": {"kind": "seq2seq", "halvings": 4}}, "r")
