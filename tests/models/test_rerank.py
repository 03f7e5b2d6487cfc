"""Reranking: the sentence that fits best is taken, by hand and alone as in a batch."""

import pytest
import torch

from skipmodal import text
from skipmodal.models import rerank
from skipmodal.models.decoders.speech import Transcript
from skipmodal.models.system import SkipModal
from skipmodal.tokenizer import Tokenizer
from tests.models.tiny import latents, tiny_batch, tiny_model

WORDS = Tokenizer.learn(["a b", "a b", "b a"], 3).words


@torch.no_grad()
def test_batches_equal_items_alone_in_every_direction(monkeypatch):
    model, batch = talkative_model(monkeypatch), tiny_batch()
    batch.mel[1, batch.mel_lengths[1] :] = 0.7
    for name, encode in latents(model, batch):
        together = model.generate_text(encode(slice(0, 2)), 12, beam=3)
        speech, sentences = model.generate_speech(encode(slice(0, 2)), 30, 12, beam=3)
        assert (sentences is None) == (name == "text")
        for i in range(2):
            alone = encode(slice(i, i + 1))
            sentence = model.generate_text(alone, 12, beam=3)
            n = sentence.ids.shape[1]
            assert together.ids[i, :n].tolist() == sentence.ids[0].tolist(), name
            spoken, _ = model.generate_speech(alone, 30, 12, beam=3)
            frames = int(spoken.lengths[0])
            assert frames == int(speech.lengths[i])
            torch.testing.assert_close(speech.mel[i, :frames], spoken.mel[0, :frames], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(speech.linear[i, :frames], spoken.linear[0, :frames], rtol=1e-4, atol=1e-5)


def talkative_model(monkeypatch, seed=10, words=()) -> SkipModal:
    """Untrained, but its sentences differ, some of them end, and, with the seeds given, which of them fit matters."""
    model = tiny_model(words=words, dropout=0.3, memory="wide").eval()
    generator = torch.Generator().manual_seed(seed)
    decoder = model.text_decoder
    for layer in (
        decoder.embed,
        decoder.blocks[0].cross.value,
        decoder.blocks[0].cross_out,
        decoder.output,
        model.text_encoder.project,
        model.image_encoder.project,
    ):
        layer.weight.data += torch.randn(layer.weight.shape, generator=generator)
    model.text_decoder.output.bias.data[text.EOS] += 0.5
    monkeypatch.setattr(rerank, "DISTANCE", 100.0)
    monkeypatch.setattr(rerank, "LIKENESS", 100000.0)
    return model


def fit_by_hand(model, source, batch, item, ids):
    """Of one sentence with one item, alone."""
    lengths = torch.tensor([ids.shape[1]])
    read = model.encode_text(ids, lengths)
    if source == "image":
        picture = model.encode_image(batch.images[item : item + 1])
        return rerank.LIKENESS * torch.cosine_similarity(read.mean, picture.mean)
    frames = batch.mel_lengths[item : item + 1]
    mel = batch.mel[item : item + 1, : int(frames)]
    tokens = model.tokenize(ids)
    written = model.text_decoder(read, tokens)
    states = model.text_decoder.spelling.spread(written.taken, tokens, ids.shape[1])
    letters = model.letter_reader(written.taken, written.spans > 0).softmax(3)[0]
    spelled = torch.cat([letters[token, :span] for token, span in enumerate(written.spans[0].tolist())])[None]
    said = model.speech_decoder(Transcript(states, ids, lengths, spelled), mel, frames).mel
    heard = model.speech_letters(model.encode_speech(mel, frames).u).log_softmax(2).transpose(0, 1)
    read = torch.nn.functional.ctc_loss(heard, ids[:, :-1], torch.tensor([len(heard)]), lengths - 1, reduction="sum")
    return -rerank.LETTERS * read - rerank.DISTANCE * (said - mel).abs().mean(2).sum()


@pytest.mark.parametrize(
    ("source", "words", "seed"), [("image", (), 320), ("image", WORDS, 79), ("speech", (), 73), ("speech", WORDS, 61)]
)
@torch.no_grad()
def test_of_the_likeliest_sentences_the_one_that_fits_is_taken(monkeypatch, source, words, seed):
    monkeypatch.setattr(rerank, "CELLS", 1000)  # items lie on both sides of a cut
    model, batch = talkative_model(monkeypatch, seed, words), tiny_batch()
    batch.mel[1, batch.mel_lengths[1] :] = 0.7  # padding is nothing
    encode = dict(latents(model, batch))[source]
    latent = encode(slice(0, 2))
    each = rerank.hypotheses(latent, 4)
    found = model.text_decoder.generate(latent, 7, each, every=True)
    assert found.capped.any() and not found.capped.view(2, each).all(1).any()
    chosen, likeliest = [], []
    for item in range(2):
        rows = [row for row in range(item * each, (item + 1) * each) if not found.capped[row]]
        sentences = [found.ids[row][found.ids[row] != 0][None] for row in rows]
        score = found.log_probability[rows] / (found.lengths[rows] if source == "image" else 1)
        fit = torch.stack([fit_by_hand(model, source, batch, item, ids) for ids in sentences]).view(-1)
        alone = torch.cat([model._fit(latent, torch.tensor([item]), ids) for ids in sentences])
        torch.testing.assert_close(alone, fit, rtol=1e-5, atol=1e-5)  # pictures hardly differ yet
        likeliest.append(sentences[int(score.argmax())][0].tolist())
        chosen.append(sentences[int((score + fit).argmax())][0].tolist())
    assert chosen != likeliest  # it is not for nothing
    assert chosen[0] != chosen[1]
    for expected in (chosen, likeliest):
        taken = model.generate_text(latent, 7, beam=4)
        assert [[i for i in row if i] for row in taken.ids.tolist()] == expected
        assert not taken.capped.any()
        monkeypatch.setattr(rerank, "DISTANCE", 0.0)
        monkeypatch.setattr(rerank, "LIKENESS", 0.0)
        monkeypatch.setattr(rerank, "LETTERS", 0.0)


@torch.no_grad()
def test_where_no_sentence_ends_the_likeliest_is_taken(monkeypatch):
    model, batch = talkative_model(monkeypatch), tiny_batch()
    model.text_decoder.output.bias.data[text.EOS] -= 100
    for source, encode in latents(model, batch):
        if source != "text":
            taken = model.generate_text(encode(slice(0, 2)), 5, beam=3)
            wide = rerank.hypotheses(encode(slice(0, 2)), 3)
            found = model.text_decoder.generate(encode(slice(0, 2)), 5, wide, every=True)
            assert taken.capped.all() and torch.equal(taken.ids, found.ids[::wide])


@torch.no_grad()
def test_a_beam_of_one_is_not_reranked(monkeypatch):
    model, batch = talkative_model(monkeypatch), tiny_batch()
    monkeypatch.setattr(rerank, "choose", None)
    for _, encode in latents(model, batch):
        assert len(model.generate_text(encode(slice(0, 2)), 5).ids) == 2
