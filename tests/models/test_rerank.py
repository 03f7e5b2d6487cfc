"""Reranking: the sentence that fits best is taken, by hand and alone as in a batch."""

import pytest
import torch

from skipmodal import text
from skipmodal.models import ctc, rerank
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
    latent = model.encode_speech(batch.mel[item : item + 1, : int(frames)], frames)
    heard = model.speech_letters(latent.u).log_softmax(2).transpose(0, 1)
    read = torch.nn.functional.ctc_loss(heard, ids[:, :-1], torch.tensor([len(heard)]), lengths - 1, reduction="sum")
    tokens = model.tokenize(ids)
    log_p = model.text_decoder(latent, tokens).logits.log_softmax(2).gather(2, tokens[:, :, None]).sum()
    return log_p - rerank.LETTERS * read


@pytest.mark.parametrize(
    ("source", "words", "seed"), [("image", (), 110), ("image", WORDS, 183), ("speech", (), 31), ("speech", WORDS, 62)]
)
@torch.no_grad()
def test_of_the_likeliest_sentences_the_one_that_fits_is_taken(monkeypatch, source, words, seed):
    monkeypatch.setattr(rerank, "CELLS", 1000)  # items lie on both sides of a cut
    model, batch = talkative_model(monkeypatch, seed, words), tiny_batch()
    batch.mel[1, batch.mel_lengths[1] :] = 0.7  # padding is nothing
    latent = dict(latents(model, batch))[source](slice(0, 2))
    each = rerank.hypotheses(4)
    found = model.text_decoder.generate(latent, 7, each, every=True)
    if source == "speech":
        read = ctc.beam_search(model.speech_letters(latent.u), latent.lengths, 7, each)
        found, each = rerank.beside(found, read, 2), 2 * each
    assert found.capped.any() and not found.capped.view(2, each).all(1).any()
    chosen = []
    for weighs in (True, False):
        if not weighs:
            monkeypatch.setattr(rerank, "LIKENESS", 0.0)
            monkeypatch.setattr(rerank, "LETTERS", 0.0)
        best = []
        for item in range(2):
            rows = [row for row in range(item * each, (item + 1) * each) if not found.capped[row]]
            sentences = [found.ids[row][found.ids[row] != 0][None] for row in rows]
            score = torch.stack([fit_by_hand(model, source, batch, item, ids) for ids in sentences]).view(-1)
            alone = torch.cat([model._fit(latent, torch.tensor([item]), ids) for ids in sentences])
            torch.testing.assert_close(alone, score, rtol=1e-5, atol=1e-5)  # pictures hardly differ yet
            if source == "image":
                score += found.log_probability[rows] / found.lengths[rows]
            best.append(sentences[int(score.argmax())][0].tolist())
        taken = model.generate_text(latent, 7, beam=4)
        assert [[i for i in row if i] for row in taken.ids.tolist()] == best
        assert not taken.capped.any()
        chosen.append(best)
    assert chosen[0] != chosen[1]  # it is not for nothing
    assert chosen[0][0] != chosen[0][1]


@torch.no_grad()
def test_where_no_sentence_ends_the_likeliest_is_taken(monkeypatch):
    model, batch = talkative_model(monkeypatch), tiny_batch()
    model.text_decoder.output.bias.data[text.EOS] -= 100
    latent = model.encode_image(batch.images[:2])
    taken, wide = model.generate_text(latent, 5, beam=3), rerank.hypotheses(3)
    found = model.text_decoder.generate(latent, 5, wide, every=True)
    assert taken.capped.all() and torch.equal(taken.ids, found.ids[::wide])
    heard = model.encode_speech(batch.mel, batch.mel_lengths)  # what CTC reads ends
    assert not model.generate_text(heard, 9, beam=3).capped.any()


@torch.no_grad()
def test_a_beam_of_one_is_not_reranked(monkeypatch):
    model, batch = talkative_model(monkeypatch), tiny_batch()
    monkeypatch.setattr(rerank, "choose", None)
    for _, encode in latents(model, batch):
        assert len(model.generate_text(encode(slice(0, 2)), 5).ids) == 2
