"""D_txt of both kinds: step by step as under teacher forcing, owners, spelling, and letters that words share."""

import pytest
import torch

from skipmodal import text
from skipmodal.config import VectorModel
from skipmodal.models.decoders.spelling import SpelledLogits, Spelling
from skipmodal.models.decoders.text import TextDecoder
from skipmodal.text import BOS, EOS, PAD, SYMBOLS
from skipmodal.tokenizer import LONGEST, Tokenizer
from tests.models.tiny import AUDIO, KINDS, characters, latent_of, latents, tiny_batch, tiny_model, tokens_of

TEXTS = ["A dog runs.", "A dog sits on a log.", "Two dogs run, don't they?", "A well-known dog's owner"]
LEARNED = Tokenizer.learn(TEXTS, 50)


def paper_decoder(**changes):
    torch.manual_seed(0)
    return TextDecoder(VectorModel(**changes), Tokenizer()).eval()


@pytest.mark.parametrize("words", [0, 3, 50])
def test_characters_of_tokens_are_those_of_the_text(words):
    tokenizer = Tokenizer.learn(TEXTS, words)
    spelling, sentences = Spelling(tokenizer), [*TEXTS, "zzz", ""]
    assert torch.equal(spelling.characters(tokens_of(tokenizer, *sentences)), characters(*sentences))


def test_a_sentence_that_breaks_off_gets_an_end():
    model = tiny_model(words=LEARNED.words)
    tokens = model.tokenize(torch.tensor([text.encode("A dog")[:-1]]))
    assert tokens[0, -1] == EOS
    assert text.decode(model.text_decoder.spelling.characters(tokens)[0].tolist()) == "A dog"
    assert torch.equal(model.tokenize(characters(*TEXTS)), tokens_of(LEARNED, *TEXTS))


def test_characters_have_the_state_of_their_token():
    spelling, rows = Spelling(LEARNED), tokens_of(LEARNED, "A dog runs.", "Two")
    states = torch.arange(rows.shape[1]).float()[None, :, None].expand(len(rows), -1, 2)
    spread = spelling.spread(states, rows, 12)
    assert spread[0, :, 1].tolist() == [0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 4]
    assert spread[1, :4, 0].tolist() == [0, 0, 0, 1]


def test_a_word_has_one_beginning_however_it_is_written():
    spelling, sentence = Spelling(LEARNED), "A dog's log."
    for tokens in (LEARNED.encode(sentence), text.encode(sentence)):
        assert spelling.begins[torch.tensor(tokens)].sum() == 4  # dog's, log, the full stop and the end


def test_padding_and_the_start_are_no_characters():
    assert (Spelling(LEARNED).lengths == 0).nonzero()[:, 0].tolist() == [PAD, BOS]
    assert not Spelling(LEARNED).state_dict()  # the words are stored as text


@pytest.mark.parametrize("context", [False, True])
def test_the_papers_decoder_fed_its_own_output_is_teacher_forcing_on_it(context):
    decoder, latent = paper_decoder(text_context=context), latent_of(torch.randn(3, 256))
    ids = decoder.generate(latent, 12).ids
    logits = decoder(latent, ids).logits
    logits[..., :2] = -torch.inf
    valid = ids != 0
    assert torch.equal(logits.argmax(-1)[valid], ids[valid])
    assert len({tuple(row) for row in ids.tolist()}) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_fed_its_own_output_is_teacher_forcing_on_it_from_every_modality(kind):
    model, batch = tiny_model(kind).eval(), tiny_batch()
    for name, encode in latents(model, batch):
        latent = encode(slice(0, 2))
        ids = model.generate_text(latent, 12).ids
        logits = model.text_decoder(latent, ids).logits.detach()
        logits[..., :2] = -torch.inf
        valid = ids != 0
        assert torch.equal(logits.argmax(-1)[valid], ids[valid]), name


@pytest.mark.parametrize("kind", ["tokens"])
def test_step_by_step_is_teacher_forcing_where_words_are_tokens(kind):
    words = Tokenizer.learn(["a dog runs", "a dog sits"], 5)
    model = tiny_model(kind, words=words.words).eval()
    decoder, tokens = model.text_decoder, tokens_of(words, "a dog sits", "a cat")
    latent = model.encode_speech(torch.rand(2, 24, AUDIO.n_mels), torch.tensor([24, 16]))
    forced = decoder(latent, tokens).logits
    step, state = decoder._stepper(latent)
    last, writable = torch.full((2, 1), BOS), decoder.spelling.lengths > 0
    for i in range(tokens.shape[1]):
        logits, state = step(last, state)
        valid = tokens[:, i] != PAD
        torch.testing.assert_close(logits[valid][:, writable], forced[valid, i][:, writable])
        assert (logits[:, ~writable] == -torch.inf).all()
        last = tokens[:, i : i + 1]


@pytest.mark.parametrize("kind", KINDS)
def test_decoders_are_causal(kind):
    model, batch = tiny_model(kind).eval(), tiny_batch()
    latent, ids = model.encode_image(batch.images), batch.ids[:2, :5]
    changed = ids.clone()
    changed[:, 2] = (ids[:, 2] - 2) % 63 + 3
    before, after = model.text_decoder(latent, ids).logits, model.text_decoder(latent, changed).logits
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_one_owner_are_as_if_each_had_its_own(kind):
    model, batch = tiny_model(kind).eval(), tiny_batch()
    latent, owners = model.encode_image(batch.images), torch.tensor([0, 0, 0, 1, 1])
    shared = model.text_decoder(latent, batch.tokens, owners)
    apart = model.text_decoder(latent.rows(owners), batch.tokens)
    torch.testing.assert_close(shared.logits, apart.logits)
    torch.testing.assert_close(shared.taken, apart.taken)
    assert (shared.attention is None) == (kind == "vector")


def test_the_papers_decoder_stops_or_says_that_it_was_cut():
    decoder, latent = paper_decoder(), latent_of(torch.randn(2, 256))
    decoder.output.weight.data.zero_()
    decoder.output.bias.data[2] = 1.0  # end of sentence
    ids, capped, *_ = decoder.generate(latent, 20)
    assert ids.shape == (2, 1)
    assert not capped.any()
    decoder.output.bias.data[2] = -1.0
    ids, capped, *_ = decoder.generate(latent, 20)
    assert ids.shape == (2, 20)
    assert capped.all()
    assert (ids > 2).all()


def test_with_history_dropout_a_part_of_the_past_is_hidden_in_training_alone():
    decoder, latent = paper_decoder(history_dropout=0.5, dropout=0), latent_of(torch.randn(1, 256))
    ids = torch.randint(3, 66, (1, 40))
    seen = []
    decoder.embed.register_forward_hook(lambda module, args, out: seen.append(args[0][0]))
    before = decoder(latent, ids).logits
    torch.testing.assert_close(decoder(latent, ids).logits, before)
    assert seen[0][1:].tolist() == ids[0, :-1].tolist()
    decoder.train()(latent, ids)
    hidden = (seen[-1] == BOS)[1:]
    assert 8 < hidden.sum() < 31
    assert torch.equal(seen[-1][1:][~hidden], ids[0, :-1][~hidden])


def test_what_a_word_shares_with_others_is_its_letters_at_their_places():
    torch.manual_seed(0)
    tokenizer = Tokenizer([" ab", " ac", " a"])
    table, logits = Spelling(tokenizer).table, SpelledLogits(4, len(tokenizer))
    letters = logits.letters.detach().view(LONGEST, len(SYMBOLS), 4)
    vectors = logits.vectors(table)
    for token in range(len(tokenizer)):
        row = [i for i in table[token].tolist() if i]
        expected = logits.weight[token] + sum(letters[place, i] for place, i in enumerate(row))
        torch.testing.assert_close(vectors[token], expected)
    x = torch.randn(2, 4)
    torch.testing.assert_close(logits(x, vectors), x @ vectors.T + logits.bias)
    vectors[tokenizer.encode(" ab")[0]].sum().backward()
    moved = logits.letters.grad.view(LONGEST, len(SYMBOLS), 4).abs().sum(2).nonzero().tolist()
    assert moved == sorted([place, i] for place, i in enumerate(text.encode(" ab")[:-1]))


def test_gradients_of_letters_are_the_same_each_time_on_several_threads():
    torch.manual_seed(0)
    tokenizer = Tokenizer([" " + "".join("abcdefgh"[i // 8**k % 8] for k in range(4)) for i in range(2000)])
    table, logits, seen = Spelling(tokenizer).table, SpelledLogits(320, len(tokenizer)), []
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(4):
            logits.zero_grad()
            logits.vectors(table).square().sum().backward()
            seen.append(logits.letters.grad.clone())
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(seen[0], each) for each in seen)


def test_attention_is_over_valid_tokens():
    model, batch = tiny_model().eval(), tiny_batch()
    latent = model.encode_speech(batch.mel, batch.mel_lengths)
    weights = model.attention(latent, batch.ids[2:])
    assert weights.shape == (3, 9, latent.u.shape[1])
    torch.testing.assert_close(weights.sum(2), torch.ones(3, 9))
    assert not weights.masked_fill(latent.mask[:, None], 0).any()
    assert tiny_model("vector").attention(latent_of(torch.randn(3, 16)), batch.ids[2:]) is None
