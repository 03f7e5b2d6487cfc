"""The letters that D_spch reads from D_txt's states: laid out, learned, and all that it is given."""

import pytest
import torch

from skipmodal import text
from skipmodal.models.decoders.letters import LetterReader, Letters, counts, lay_out, letter_loss, regroup
from skipmodal.text import PAD, SYMBOLS
from skipmodal.tokenizer import LONGEST, Tokenizer
from tests.models.tiny import latents, losses_of, tiny_batch, tiny_model

WORDS = Tokenizer.learn(["a dog runs", "two dogs sit"], 5)


def one_hot(rows: list[list[str]]) -> torch.Tensor:
    """Logits of sentences of words, (B, S, LONGEST, symbols), sure of each letter and of the end after it."""
    logits = torch.zeros(len(rows), len(rows[0]), LONGEST, len(SYMBOLS))
    logits[..., PAD] = 10
    for row, words in zip(logits, rows, strict=True):
        for token, word in zip(row, words, strict=True):
            for place, letter in enumerate(text.encode(word)[:-1]):
                token[place, letter] = 20
    return logits


def test_letters_are_counted_and_laid_out_one_after_the_other():
    logits = one_hot([["a", " dog"], ["two", "x"]])
    read = counts(logits)
    assert read.tolist() == [[1, 4], [3, 1]]
    laid = lay_out(logits, read).argmax(2)
    assert [text.decode(row) for row in laid.tolist()] == ["a dog", "twox"]
    assert counts(one_hot([[""]])).tolist() == [[1]]  # a token without a letter would have no time
    full = one_hot([["a" * LONGEST]])
    assert counts(full).tolist() == [[LONGEST]]


def test_the_loss_is_of_letters_and_the_end_alone():
    logits = torch.randn(1, 2, LONGEST, len(SYMBOLS), generator=torch.Generator().manual_seed(0))
    spelled = torch.zeros(1, 2, LONGEST, dtype=torch.int32)
    spelled[0, 0, :3] = torch.tensor(text.encode("dog")[:-1])
    spans = torch.tensor([[3, 0]])  # the second is padding
    p = logits[0, 0].log_softmax(1)
    expected = -sum(p[place, letter] for place, letter in enumerate([*text.encode("dog")[:-1], PAD]))
    torch.testing.assert_close(letter_loss(Letters(logits, spelled, spans)), expected)


@pytest.mark.parametrize(
    ("read", "totals", "expected"),
    [
        ([1, 2], [1, 2, 3], [1, 2, 3]),  # as many letters as there are
        ([2, 1], [1, 2, 3], [3, 1.5, 1.5]),  # the second token has two characters, of which one was read
        ([1, 3], [1, 2, 2, 1], [1, 2.5, 2.5]),
    ],
)
def test_time_is_that_of_the_sentence_whatever_was_read(read, totals, expected):
    letters = torch.arange(len(totals)).repeat_interleave(torch.tensor(totals))
    alignment = torch.nn.functional.one_hot(letters).float()[None]  # (1, 6 steps, letters)
    grouped = regroup(alignment, torch.tensor([read]), torch.tensor([[1, 2]]))
    assert grouped.shape == (1, 6, 3)
    torch.testing.assert_close(grouped[0].sum(0), torch.tensor(expected).float())
    torch.testing.assert_close(grouped.sum(2), torch.ones(1, 6))


@torch.no_grad()
def test_other_ids_with_the_same_states_are_spoken_alike(monkeypatch):
    model = tiny_model("tokens", words=WORDS.words).eval()
    rows = [torch.tensor([text.encode(sentence)]) for sentence in ("two dogs sit", "a dog runs")]
    latents = [model.encode_text(ids, torch.tensor([ids.shape[1]])) for ids in rows]
    follows = [model._follow(latent, model.tokenize(ids)) for latent, ids in zip(latents, rows, strict=True)]
    spoken = [model.generate_speech(latent, 200, 20)[0] for latent in latents]
    assert follows[0].target.shape == follows[1].target.shape  # as many tokens, others
    assert not torch.equal(follows[0].target, follows[1].target)
    for states_of, ids_of in ((0, 1), (1, 0)):
        given = follows[ids_of]._replace(taken=follows[states_of].taken)
        monkeypatch.setattr(model, "_follow", lambda latent, tokens, given=given: given)
        found = model.generate_speech(latents[ids_of], 200, 20)[0]
        # The wav is made of these alone.
        assert torch.equal(found.mel, spoken[states_of].mel) and torch.equal(found.linear, spoken[states_of].linear)
    assert spoken[0].mel.shape != spoken[1].mel.shape or not torch.equal(spoken[0].mel, spoken[1].mel)


@torch.no_grad()
def test_every_modality_speaks_with_times_for_its_sentence():
    model, batch = tiny_model("tokens", words=WORDS.words).eval(), tiny_batch()
    for name, encode in latents(model, batch):
        latent = encode(slice(0, 2))
        speech, sentences = model.generate_speech(latent, 60, 12)
        ids = latent.ids if sentences is None else sentences.ids
        assert speech.alignment.shape[2] >= int((ids != PAD).sum(1).max()) - 1, name
        torch.testing.assert_close(speech.alignment.sum((1, 2)), speech.steps.float(), rtol=0.2, atol=1.0)


def test_letters_are_learned_from_every_modality():
    model, batch = tiny_model("tokens"), tiny_batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    first = None
    for _ in range(120):
        losses = losses_of(model, batch, "letters", "text_from_text", "text_from_image", "text_from_speech")
        first = first or losses["letters"].item()
        optimizer.zero_grad()
        losses["letters"].backward()
        optimizer.step()
    assert losses["letters"] < 0.3 * first
    assert len(model(batch, {"letters", "text_from_image", "text_from_speech"}).letters) == 3
    assert len(model(batch, {"letters"}).letters) == 1
    assert isinstance(model.letter_reader, LetterReader)
