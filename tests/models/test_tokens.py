"""The token model: what reaches what, masks, free-running against teacher forcing."""

import pytest
import torch
from skipmodal.models.token_decoders import Transcript
from skipmodal.models.tokens import TokenSkipModal
from torch.nn.utils.rnn import pad_sequence

from skipmodal import text
from skipmodal.audio import AudioConfig
from skipmodal.config import load_recipe, parse_recipe
from skipmodal.data.batches import Batch
from skipmodal.image import ImageConfig
from skipmodal.models import build_model, token_decoders, tokens
from skipmodal.models.layers import length_mask
from skipmodal.training.losses import compute_losses
from tests.conftest import TINY_MODEL
from tests.models.test_skipmodal import AUDIO, reached, tiny_batch

TOKENS = {"tokens": True, "frames_per_step": 3, "characters_per_second": 400, "dropout": 0.3}


def tiny_model(**changes) -> TokenSkipModal:
    torch.manual_seed(0)
    config = parse_recipe({"model": {**TINY_MODEL, **TOKENS, **changes}}, "tiny").model
    model = build_model(config, AUDIO, ImageConfig(size=16))
    assert isinstance(model, TokenSkipModal)
    return model


def losses_of(model, batch, **options):
    linear = batch.linear(AUDIO) if len(batch.mel) else None
    return compute_losses(model(batch, text_from_text=True, **options), batch, linear)


def test_losses_reach_the_blocks_of_their_path():
    model, batch = tiny_model().eval(), tiny_batch()
    middle = {"transformer", "memory"}
    path = {"text_encoder", "text_decoder", "speech_decoder", *middle}
    losses = losses_of(model, batch)
    assert reached(model, losses["image"]) == {"text_encoder", "image_decoder", *middle}
    for name in ("mel", "linear", "duration"):
        assert reached(model, losses[name]) == path, name
    assert reached(model, losses["alignment"]) == {"speech_decoder"}
    assert reached(model, losses["text_from_image"]) == {"image_encoder", "text_decoder", *middle}
    assert reached(model, losses["text_from_speech"]) == {"speech_encoder", "text_decoder", *middle}
    assert reached(model, losses["text_from_text"]) == {"text_encoder", "text_decoder", *middle}
    assert reached(model, losses["listening"]) == {"speech_encoder", "text_decoder", *middle}
    assert reached(model, losses["contrastive"]) == {"image_encoder", "text_encoder", "speech_encoder", *middle}
    assert reached(model, losses["adversary"]) == {"image_encoder", "speech_encoder", "transformer", "classifier"}


def test_padding_changes_no_loss():
    model, batch = tiny_model().eval(), tiny_batch()
    before = losses_of(model, batch)
    pad = torch.nn.functional.pad
    wider = Batch(
        [], pad(batch.ids, (0, 4)), batch.lengths, batch.images,
        pad(batch.mel, (0, 0, 0, 12), value=0.7), batch.mel_lengths, pad(batch.wav, (0, 192)),
    )  # fmt: skip
    after = losses_of(model, wider)
    for name, loss in before.items():
        torch.testing.assert_close(after[name], loss, msg=f"{name} changed", rtol=1e-4, atol=1e-5)


def test_a_part_for_the_post_net_is_that_part_of_the_whole_without_context():
    model, batch = tiny_model(postnet_banks=1).eval(), tiny_batch()
    whole = model(batch).speech
    part = (torch.tensor([2, 0, 1]), torch.tensor([20, 13, 5]), 20)
    cut = model(Batch(**{**batch.__dict__, "linear_part": part})).speech
    assert cut.linear.shape[1] == 20
    torch.testing.assert_close(cut.linear[1, :13], whole.linear[1, :13])  # from its start, whole
    assert torch.equal(cut.mel, whole.mel)


def test_either_half_may_be_empty():
    model = tiny_model()
    assert set(losses_of(model, tiny_batch(2, 0))) == {"image", "text_from_image", "contrastive", "adversary"}
    speech = {"mel", "linear", "duration", "alignment", "text_from_speech", "text_from_text", "listening"}
    speech |= {"contrastive", "adversary"}
    assert set(losses_of(model, tiny_batch(0, 3))) == speech


@pytest.mark.parametrize("changes", [{"memory": "none"}, {"memory": "fc"}, {"transformer": False}])
def test_ablations_build_and_train(changes):
    torch.stack(list(losses_of(tiny_model(**changes), tiny_batch()).values())).sum().backward()


def latents(model, batch):
    yield "image", lambda i: model.encode_image(batch.images[i])
    yield "speech", lambda i: model.encode_speech(batch.mel[i], batch.mel_lengths[i])
    yield "text", lambda i: model.encode_text(batch.ids[i], batch.lengths[i])


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


def talkative_model(monkeypatch, seed=10, **changes) -> TokenSkipModal:
    """Untrained, but its sentences differ, some of them end, and, with the seeds given, which of them agree matters."""
    model = tiny_model(**changes).eval()
    generator = torch.Generator().manual_seed(seed)
    decoder = model.text_decoder
    for layer in (
        decoder.embed,
        decoder.state,
        decoder.output,
        model.text_encoder.project,
        model.image_encoder.project,
    ):
        layer.weight.data += torch.randn(layer.weight.shape, generator=generator)
    model.text_decoder.output.bias.data[text.EOS] += 0.5
    monkeypatch.setattr(tokens, "MISFIT", 100.0)
    monkeypatch.setattr(tokens, "LIKENESS", 100000.0)
    return model


def agreement_by_hand(model, source, batch, item, ids):
    """Of one sentence with one item, alone."""
    lengths = torch.tensor([ids.shape[1]])
    read = model.encode_text(ids, lengths)
    if source == "image":
        picture = model.encode_image(batch.images[item : item + 1])
        return tokens.LIKENESS * torch.cosine_similarity(read.mean, picture.mean)
    frames = batch.mel_lengths[item : item + 1]
    mel = batch.mel[item : item + 1, : int(frames)]
    units = model.text_decoder.units.segment(ids)
    states = model.text_decoder.units.to_characters(model.text_decoder(read, units)[1], units, ids.shape[1])
    said = model.speech_decoder(Transcript(states, ids, lengths), mel, frames).mel
    return -tokens.MISFIT * (said - mel).abs().mean(2).sum()


@pytest.mark.parametrize(
    ("source", "words", "seed"), [("image", 0, 33), ("image", 3, 4), ("speech", 0, 3), ("speech", 3, 11)]
)
@torch.no_grad()
def test_of_the_likeliest_sentences_the_one_that_agrees_is_taken(monkeypatch, source, words, seed):
    monkeypatch.setattr(tokens, "CELLS", 1000)  # items lie on both sides of a cut
    model, batch = talkative_model(monkeypatch, seed, words=words), tiny_batch()
    model.learn_words(["a b", "a b", "b a"])
    batch.mel[1, batch.mel_lengths[1] :] = 0.7  # padding is nothing
    encode = dict(latents(model, batch))[source]
    each = 4 * (tokens.HEARD if source == "speech" else tokens.SEEN)
    latent = encode(slice(0, 2))
    found = model.text_decoder.generate(latent, 7, each, every=True)
    assert found.capped.any() and not found.capped.view(2, each).all(1).any()
    chosen, likeliest = [], []
    for item in range(2):
        rows = [row for row in range(item * each, (item + 1) * each) if not found.capped[row]]
        sentences = [found.ids[row][found.ids[row] != 0][None] for row in rows]
        score = found.log_probability[rows] / (found.lengths[rows] if source == "image" else 1)
        agreement = torch.stack([agreement_by_hand(model, source, batch, item, ids) for ids in sentences]).view(-1)
        alone = torch.cat([model._agree(latent, torch.tensor([item]), ids) for ids in sentences])
        torch.testing.assert_close(alone, agreement, rtol=1e-5, atol=1e-5)  # pictures hardly differ yet
        likeliest.append(sentences[int(score.argmax())][0].tolist())
        chosen.append(sentences[int((score + agreement).argmax())][0].tolist())
    assert chosen != likeliest  # it is not for nothing
    assert chosen[0] != chosen[1]
    for expected in (chosen, likeliest):
        taken = model.generate_text(latent, 7, beam=4)
        assert [[i for i in row if i] for row in taken.ids.tolist()] == expected
        assert not taken.capped.any()
        monkeypatch.setattr(tokens, "MISFIT", 0.0)
        monkeypatch.setattr(tokens, "LIKENESS", 0.0)


@torch.no_grad()
def test_where_no_sentence_ends_the_likeliest_is_taken(monkeypatch):
    model, batch = talkative_model(monkeypatch), tiny_batch()
    model.text_decoder.output.bias.data[text.EOS] -= 100
    for source, encode in latents(model, batch):
        if source != "text":
            taken = model.generate_text(encode(slice(0, 2)), 5, beam=3)
            wide = 3 * (tokens.HEARD if source == "speech" else tokens.SEEN)
            found = model.text_decoder.generate(encode(slice(0, 2)), 5, wide, every=True)
            assert taken.capped.all() and torch.equal(taken.ids, found.ids[::wide])


def test_text_decoder_fed_its_own_output_is_teacher_forcing_on_it():
    model, batch = tiny_model().eval(), tiny_batch()
    for name, encode in latents(model, batch):
        latent = encode(slice(0, 2))
        ids = model.generate_text(latent, 12).ids
        logits = model.text_decoder(latent, ids)[0].detach()
        logits[..., :2] = -torch.inf
        valid = ids != 0
        assert torch.equal(logits.argmax(-1)[valid], ids[valid]), name


def test_text_decoder_step_by_step_is_teacher_forcing_where_words_are_units():
    model = tiny_model(words=5).eval()
    model.learn_words(["a dog runs", "a dog sits"])
    decoder = model.text_decoder
    sentences = [text.encode("a dog sits"), text.encode("a cat")]
    units = decoder.units.segment(pad_sequence([torch.tensor(each) for each in sentences], batch_first=True))
    latent = model.encode_speech(torch.rand(2, 24, AUDIO.n_mels), torch.tensor([24, 16]))
    forced, _, _ = decoder(latent, units)
    step, state, last = (
        decoder._stepper(decoder._remember(latent)),
        decoder._start(latent),
        torch.full((2, 1), text.BOS),
    )
    writable = decoder.units.lengths > 0
    for i in range(units.shape[1]):
        logits, state = step(last, state)
        torch.testing.assert_close(logits[:, writable], forced[:, i, writable])
        assert (logits[:, ~writable] == -torch.inf).all()
        last = units[:, i : i + 1]


def test_losses_of_texts_are_a_character_also_where_words_are_whole():
    model, batch = tiny_model(words=5).eval(), tiny_batch(2, 2)
    model.learn_words(["a dog", "a dog"])
    ids = pad_sequence(
        [torch.tensor(text.encode(each)) for each in ("a dog", "dog", "a dog dog", "a")], batch_first=True
    )
    batch = Batch(**{**batch.__dict__, "ids": ids, "lengths": (ids != 0).sum(1)})
    written = model(batch).text_from_image
    assert written.target.shape == (2, 4) and (written.target != 0).sum() == 3 + 4
    spent = written.logits.log_softmax(-1).gather(2, written.target[:, :, None])[:, :, 0]
    expected = -spent[written.target != 0].sum() / (6 + 4)
    torch.testing.assert_close(losses_of(model, batch)["text_from_image"], expected)


def test_without_a_loss_on_pictures_their_texts_are_not_encoded():
    model, batch = tiny_model().eval(), tiny_batch()
    whole, less = model(batch), model(batch, image_from_text=False)
    assert less.images is None and len(less.pairs) == 1
    for name in ("text_from_image", "text_from_speech"):
        torch.testing.assert_close(getattr(less, name).logits, getattr(whole, name).logits)
    torch.testing.assert_close(less.speech.mel, whole.speech.mel)
    assert [whole.modality_counts[i] for i in (0, 2, 3)] == [less.modality_counts[i] for i in (0, 2, 3)]
    assert less.modality_counts[1] == 0
    only_pictures = model(tiny_batch(2, 0), image_from_text=False)
    assert only_pictures.text_from_image is not None and only_pictures.images is None and not only_pictures.pairs


def test_speech_decoder_with_its_own_durations_says_what_it_says_with_given_ones(monkeypatch):
    decoder = tiny_model().eval().speech_decoder
    transcript = Transcript(torch.randn(2, 9, 8), torch.randint(3, 66, (2, 9)), torch.tensor([9, 6]))
    whole = torch.randint(1, 5, (2, 9)) * length_mask(transcript.lengths, 9)
    monkeypatch.setattr(token_decoders, "align", lambda *_: whole)
    read, _ = decoder._read(transcript)
    monkeypatch.setattr(decoder, "_read", lambda _: (read, whole.float().log()))
    free = decoder.generate(transcript, 99)
    assert free.lengths.tolist() == whole.sum(1).tolist() and not free.capped.any()
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
    transcript = Transcript(torch.randn(200, 9, 8), torch.randint(3, 66, (1, 9)).expand(200, 9), torch.full((200,), 9))
    alone, _ = decoder.eval()._read(transcript._replace(states=torch.zeros(1, 9, 8).expand(200, 9, 8)))
    told, _ = decoder._read(transcript)
    read, _ = decoder.train()._read(transcript)
    without = [torch.allclose(read[i], alone[i], atol=1e-6) for i in range(200)]
    assert 70 < sum(without) < 130
    assert all(torch.allclose(read[i], told[i], atol=1e-6) for i in range(200) if not without[i])


def test_losses_of_speech_have_gradients_in_bf16():
    model, batch = tiny_model(), tiny_batch(0, 3)
    with torch.autocast("cpu", torch.bfloat16):
        losses = losses_of(model, batch)
    assert all(torch.isfinite(loss) and loss.dtype == torch.float32 for loss in losses.values())
    torch.stack([losses[name] for name in ("mel", "duration", "alignment")]).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.speech_decoder.parameters() if p.grad is not None)
    assert model.speech_decoder.aligner.embed.weight.grad.any()


def test_text_decoder_is_causal():
    model, batch = tiny_model().eval(), tiny_batch()
    latent, ids = model.encode_image(batch.images), batch.ids[:2, :5]
    changed = ids.clone()
    changed[:, 2] = (ids[:, 2] - 2) % 63 + 3
    before, after = model.text_decoder(latent, ids)[0], model.text_decoder(latent, changed)[0]
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def test_image_to_speech_goes_through_the_memory():
    model, batch = tiny_model().eval(), tiny_batch()
    model.memory.memory.data.zero_()  # an empty memory carries nothing: all pictures sound the same
    speech, _ = model.generate_speech(model.encode_image(batch.images), 30, 12)
    assert torch.equal(speech.mel[0], speech.mel[1])


def test_parameter_counts_of_the_base_recipe():
    model = build_model(load_recipe("base").model, AudioConfig(), ImageConfig(encoder="efficientnet_lite0"))
    counts = {name: sum(p.numel() for p in block.parameters()) for name, block in model.named_children()}
    assert counts["memory"] == 128 * 256 + 256 * 256 + 256  # as in the paper
    assert counts["classifier"] == 2 * (256 * 256 + 256) + 256 * 3 + 3
    assert sum(p.numel() for p in model.image_encoder.backbone.parameters()) == 3_350_000
    assert not any(p.requires_grad for p in model.image_encoder.backbone.parameters())
    assert 2 * sum(counts.values()) < 40e6  # bytes in fp16
