"""The whole model on a batch: what reaches what, what padding and shared passes change (nothing), and its sizes."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from skipmodal.audio import AudioConfig
from skipmodal.config import VectorModel
from skipmodal.features import kinds
from skipmodal.image import ImageConfig
from skipmodal.models.latent import Latent
from skipmodal.models.system import Outputs, SkipModal
from skipmodal.recipe import load_recipe
from skipmodal.tokenizer import Tokenizer
from skipmodal.training.losses import compute_losses
from tests.models.tiny import (
    AUDIO,
    KINDS,
    WANTED,
    characters,
    latent_of,
    latents,
    losses_of,
    make_batch,
    reached,
    tiny_batch,
    tiny_model,
    tokens_of,
)

MIDDLE = {"transformer", "memory"}
OF_PICTURES = {"vector": {"image", "text_from_image"}}
OF_PICTURES["tokens"] = {*OF_PICTURES["vector"], "round_trip"}
OF_SPEECH = {"vector": {"mel", "linear", "stop", "text_from_speech"}}
OF_SPEECH["tokens"] = {
    "mel", "linear", "duration", "prosody", "alignment", "text_from_speech", "ctc", "guided_attention",
}  # fmt: skip
_BOTH = {"text_from_text", "contrastive", "distance", "adversary", "classifier"}
OF_BOTH = {"vector": _BOTH, "tokens": {*_BOTH, "letters"}}


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_cross_modal_and_reach_the_blocks_of_equations_3_to_7(kind):
    # In training T's batch norm ties all modalities together and every encoder gets a gradient: evaluate.
    model, batch = tiny_model(kind).eval(), tiny_batch()
    read = {"vector": set(), "tokens": {"text_decoder", "letter_reader"}}[kind]
    spoken = {"text_encoder", "speech_decoder", *read, *MIDDLE}
    encoders = {"image_encoder", "text_encoder", "speech_encoder"}
    path = {
        "image": {"text_encoder", "image_decoder", *MIDDLE},
        **{name: spoken for name in ("mel", "linear", "stop", "duration", "prosody")},
        "alignment": {"speech_decoder"},
        "text_from_image": {"image_encoder", "text_decoder", *MIDDLE},
        "text_from_speech": {"speech_encoder", "text_decoder", *MIDDLE},
        "ctc": {"speech_encoder", "speech_letters", *MIDDLE},
        "guided_attention": {"speech_encoder", "text_decoder", *MIDDLE},
        "text_from_text": {"text_encoder", "text_decoder", *MIDDLE},
        "letters": {*encoders, "text_decoder", "letter_reader", *MIDDLE},
        "round_trip": {"image_encoder", "speech_decoder", *read, *MIDDLE},
        "contrastive": {*encoders, *MIDDLE},
        "distance": {*encoders, *MIDDLE},
        "adversary": {"image_encoder", "speech_encoder", "transformer"},
        "classifier": {"adversary"},
    }
    losses = losses_of(model, batch)
    assert set(losses) == WANTED[kind] | {"classifier"} == OF_PICTURES[kind] | OF_SPEECH[kind] | OF_BOTH[kind]
    for name, loss in losses.items():
        assert reached(model, loss) == path[name], name


def test_letters_are_read_from_u_and_from_what_the_speech_encoder_makes_it_from():
    model, batch = tiny_model().eval(), tiny_batch()
    encoded = model.speech_encoder(batch.mel, batch.mel_lengths)
    latent = model.encode_speech(batch.mel, batch.mel_lengths)
    ids, lengths = batch.spoken
    expected = 0.0
    for logits in (model.speech_encoder.letters(encoded.states), model.speech_letters(latent.u)):
        log_p = logits.log_softmax(2).transpose(0, 1)
        loss = torch.nn.CTCLoss(reduction="sum", zero_infinity=True)  # there are too few frames for some letters
        expected = expected + loss(log_p, ids, latent.lengths, lengths - 1) / lengths.sum() / 2
    torch.testing.assert_close(losses_of(model, batch, "ctc")["ctc"], expected)


def test_it_learns_to_hear_from_what_it_says_itself():
    model, batch = tiny_model(refiner=1).eval(), tiny_batch(2, 0)
    torch.nn.init.constant_(model.speech_decoder.duration[2].bias, 1.0)
    torch.manual_seed(0)
    losses = losses_of(model, batch, "back_translation")
    assert set(losses) == {"back_translation"}
    assert reached(model, losses["back_translation"]) == {"speech_encoder", "text_decoder", *MIDDLE}
    assert losses_of(model, batch, "back_translation")["back_translation"] != losses["back_translation"]  # drawn anew
    transcript = model._transcript(model.text_decoder(model.encode_text(batch.ids, batch.lengths), batch.tokens))
    said = model.speech_decoder.generate(transcript, 99)
    lengths = torch.stack([model.speech_decoder.vary(transcript)[1] for _ in range(40)])
    assert lengths.unique(dim=0).shape[0] > 5
    torch.testing.assert_close(lengths.float().mean(0), said.lengths.float(), rtol=0.1, atol=1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_alone_is_what_it_is_among_the_others(kind):
    model, batch = tiny_model(kind).eval(), tiny_batch()
    together = losses_of(model, batch)
    for name in WANTED[kind]:
        # Letters are read from what is written: of recordings and pictures only where D_txt learns from them.
        wanted = {"letters", "text_from_image", "text_from_speech"} if name == "letters" else {name}
        alone = losses_of(model, batch, *wanted)
        assert set(alone) == wanted | ({"classifier"} if name == "adversary" else set())
        torch.testing.assert_close(alone[name], together[name], msg=name)


def test_text_to_speech_alone_hears_and_sees_nothing(monkeypatch):
    model, batch = tiny_model(), tiny_batch()
    for encoder in (model.speech_encoder, model.image_encoder):
        monkeypatch.setattr(encoder, "forward", None)
    assert {"mel", "letters"} <= set(losses_of(model, batch, "mel", "linear", "duration", "letters"))


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_no_loss(kind):
    model, batch = tiny_model(kind).eval(), tiny_batch()
    before = losses_of(model, batch)
    # Longer padding, filled with what must not be seen.
    pad = torch.nn.functional.pad
    mel = pad(batch.mel, (0, 0, 0, 30), value=0.7)
    wider = make_batch(
        pad(batch.ids, (0, 4)), batch.lengths, batch.images, mel, batch.mel_lengths, pad(batch.wav, (0, 480))
    )
    for name, loss in losses_of(model, wider).items():
        torch.testing.assert_close(before[name], loss, msg=f"{name} changed", rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_captions_that_share_a_pass_are_worth_what_each_is_with_a_pass_of_its_own(kind):
    model, one = tiny_model(kind).eval(), tiny_batch()
    texts = torch.tensor([0, 4, 2, 1, 3])  # three of the first picture, two of the second
    of_a = one.ids[texts]
    lengths = torch.cat([one.lengths[texts], one.lengths[2:]])
    ids, owners = torch.cat([of_a, one.ids[2:]]), torch.tensor([0, 0, 0, 1, 1])
    speech = (one.mel, one.mel_lengths, one.wav)
    shared = losses_of(model, make_batch(ids, lengths, one.images, *speech, owners=owners))
    apart = losses_of(model, make_batch(ids, lengths, one.images[owners], *speech))
    torch.testing.assert_close(shared["text_from_image"], apart["text_from_image"])
    # What a picture's text is needed for has the first of each.
    firsts = [0, 3, *range(5, 8)]
    single = losses_of(model, make_batch(ids[firsts], lengths[firsts], one.images, *speech))
    for name in set(shared) - {"text_from_image"}:
        torch.testing.assert_close(shared[name], single[name], msg=name)
    for name in OF_SPEECH[kind]:
        torch.testing.assert_close(shared[name], apart[name], msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_either_half_may_be_empty(kind):
    model = tiny_model(kind)
    assert set(losses_of(model, tiny_batch(2, 0))) == OF_PICTURES[kind] | OF_BOTH[kind]
    assert set(losses_of(model, tiny_batch(0, 3))) == OF_SPEECH[kind] | OF_BOTH[kind]


def test_losses_by_hand():
    model, batch = tiny_model("vector").eval(), tiny_batch()
    outputs = model(batch, WANTED["vector"])
    losses = compute_losses(outputs, batch, batch.linear(AUDIO), WANTED["vector"])
    speech, written = outputs.spoken, outputs.written["text_from_image"][0]
    errors = [(speech.mel[i, :n] - batch.mel[i, :n]).abs().flatten() for i, n in enumerate(batch.mel_lengths)]
    torch.testing.assert_close(losses["mel"], torch.cat(errors).mean())
    torch.testing.assert_close(losses["image"], (outputs.pictures - batch.images).abs().mean())
    nats = [
        -written.logits[i, t].log_softmax(0)[batch.ids[i, t]]
        for i in range(2)
        for t in range(batch.lengths[i])
    ]  # fmt: skip
    torch.testing.assert_close(losses["text_from_image"], torch.stack(nats).mean())
    stops, weights = [], []
    for i, n in enumerate(batch.mel_lengths.tolist()):
        steps = -(-n // 5)
        p = speech.stop[i, :steps].sigmoid()
        stops += [-(1 - p[t]).log() for t in range(steps - 1)] + [-5 * p[steps - 1].log()]
        weights.append(steps)
    torch.testing.assert_close(losses["stop"], torch.stack(stops).sum() / sum(weights))
    pairs = ((outputs.image, outputs.text_a), (outputs.speech, outputs.text_b))
    squares = [((a.mean - b.mean) ** 2).sum() / len(a.mean) for a, b in pairs]
    torch.testing.assert_close(losses["distance"], squares[0] + squares[1])


def test_losses_of_texts_are_a_character_also_where_words_are_whole():
    words = Tokenizer.learn(["a dog", "a dog"], 5)
    model, batch = tiny_model(words=words.words).eval(), tiny_batch(2, 2)
    sentences = ("a dog", "dog", "a dog dog", "a")
    ids = characters(*sentences)
    batch = replace(batch, ids=ids, lengths=(ids != 0).sum(1), tokens=tokens_of(words, *sentences))
    (written,) = model(batch, {"text_from_image"}).written["text_from_image"]
    assert written.target.shape == (2, 4) and (written.target != 0).sum() == 3 + 4
    spent = written.logits.log_softmax(-1).gather(2, written.target[:, :, None])[:, :, 0]
    expected = -spent[written.target != 0].sum() / (6 + 4)
    torch.testing.assert_close(losses_of(model, batch)["text_from_image"], expected)


def pair_losses(u, v):
    outputs = Outputs(image=latent_of(u), text_a=latent_of(v), speech=latent_of(u[:1]), text_b=latent_of(v[:1]))
    losses = compute_losses(outputs, tiny_batch(3, 0), None, {"contrastive", "distance"})
    return losses["contrastive"].item(), losses["distance"].item()


def test_the_contrastive_loss_falls_when_pairs_point_the_same_way():
    u = torch.eye(4)[:3] * torch.tensor([[1.0], [5.0], [0.1]])  # the cosine is what counts
    assert pair_losses(u, 2 * u)[0] < 1e-4
    assert pair_losses(u, u.roll(1, 0))[0] > 10
    assert pair_losses(torch.ones(3, 4), torch.ones(3, 4))[0] == pytest.approx(math.log(3))


def test_the_distance_is_of_pairs_alone():
    u = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert pair_losses(u, u)[1] == 0
    assert pair_losses(u, u + 2)[1] == pytest.approx(16 + 16)  # of A and of B


@pytest.mark.parametrize("kind", KINDS)
def test_the_post_net_works_on_a_part(kind):
    model, batch = tiny_model(kind, postnet_banks=1).eval(), tiny_batch()
    part = replace(batch, linear_part=(torch.tensor([2, 0, 1]), torch.tensor([20, 13, 5]), 20))
    whole, cut = (model(each, {"mel", "linear"}).spoken for each in (batch, part))
    assert cut.linear.shape[:2] == (3, 20)
    torch.testing.assert_close(cut.linear[1, :13], whole.linear[1, :13])  # from its start, whole
    assert torch.equal(cut.mel, whole.mel)


@pytest.mark.parametrize("kind", KINDS)
def test_what_no_wanted_loss_needs_is_not_encoded(kind):
    model, batch = tiny_model(kind).eval(), tiny_batch()
    whole = model(batch, WANTED[kind])
    less = model(batch, {"text_from_image", "text_from_speech", "mel"})
    assert less.pictures is less.text_a is less.game is None and len(less.pairs) == 1
    for name in ("text_from_image", "text_from_speech"):
        torch.testing.assert_close(less.written[name][0].logits, whole.written[name][0].logits)
    torch.testing.assert_close(less.spoken.mel, whole.spoken.mel)
    only = model(tiny_batch(2, 0), {"text_from_image"})
    assert "text_from_image" in only.written and only.pictures is None and not only.pairs
    nothing = model(tiny_batch(2, 0), {"text_from_speech", "guided_attention"})
    assert not nothing.written and not nothing.pairs
    rewarded = model(batch, {"self_critical"})
    assert isinstance(rewarded.image, Latent) and rewarded.speech is rewarded.text_a is rewarded.text_b is None


def conv(a, b, *kernel, bias=True):
    return a * b * math.prod(kernel) + b * bias


def norm(n):
    return 2 * n


def rnn(gates, a, b):
    return gates * (a * b + b * b + 2 * b)


def cbhg(width, banks, channels, projection):
    bank = sum(conv(width, channels, k) + norm(channels) for k in range(1, banks + 1))
    project = conv(banks * channels, projection, 3) + norm(projection) + conv(projection, width, 3) + norm(width)
    resize = conv(width, channels) if width != channels else 0
    return bank + project + resize + 4 * 2 * conv(channels, channels) + 2 * rnn(3, channels, channels)


IMAGE_WIDTHS = (3, 64, 128, 256, 512)
UP_WIDTHS = (64, 32, 16, 8, 8)  # and then to RGB
EXPECTED = {
    "image_encoder": sum(
        conv(a, b, 4, 4, bias=False) + norm(b) for a, b in pairwise(IMAGE_WIDTHS)
    ),
    "text_encoder": 66 * 128 + conv(128, 256) + conv(256, 128) + cbhg(128, 16, 128, 128) + conv(256, 512),
    "speech_encoder": conv(1, 32, 3, 3, bias=False) + norm(32) + conv(32, 64, 3, 3, bias=False) + norm(64)
    + rnn(3, 64 * 20, 256) + conv(256, 512),
    "bottleneck.transformer": conv(512, 256) + 2 * (conv(256, 256) + norm(256)),
    "adversary": 2 * conv(256, 256) + conv(256, 3),
    "bottleneck.memory": 128 * 64 + conv(64, 256),
    "image_decoder": conv(256, 1024)
    + sum(conv(a, b, 4, 4, bias=False) + norm(b) for a, b in pairwise(UP_WIDTHS))
    + conv(8, 3, 4, 4),
    "text_decoder": 66 * 128 + conv(256, 4 * 128) + 2 * rnn(4, 128, 128) + conv(128, 66),
    "speech_decoder": conv(80, 256) + conv(256, 128) + conv(256, 5 * 256) + rnn(3, 128 + 256, 256)
    + rnn(4, 256 + 256, 256) + rnn(4, 256, 256) + conv(256, 5 * 80) + conv(256, 1)
    + cbhg(80, 8, 128, 256) + conv(256, 1025),
}  # fmt: skip


@pytest.fixture(scope="module")
def paper():
    torch.manual_seed(0)
    return SkipModal(VectorModel(), AudioConfig(), ImageConfig(), Tokenizer())


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("block", EXPECTED)
def test_parameter_counts_are_the_papers(paper, block):
    assert count(paper.get_submodule(block)) == EXPECTED[block]


def test_no_block_is_left_out(paper):
    assert {name.split(".")[0] for name in EXPECTED} == {name for name, _ in paper.named_children()}
    assert sum(EXPECTED.values()) == count(paper)


@torch.no_grad()
def test_shapes_of_the_paper(paper):
    paper.eval()
    lengths, frames = torch.tensor([7, 4]), torch.tensor([23, 12])
    assert paper.image_encoder(torch.rand(2, 3, 128, 128)).e.shape == (2, 1, 512)
    assert paper.text_encoder(torch.randint(3, 66, (2, 7)), lengths).e.shape == (2, 1, 512)
    encoded = paper.speech_encoder(torch.rand(2, 23, 80), frames)
    assert encoded.e.shape == (2, 1, 512)
    (latent,) = paper.bottleneck([encoded])
    assert latent.z.shape == latent.u.shape == (2, 1, 256)
    assert latent.z.abs().max() <= 1
    assert paper.adversary(latent.z[:, 0]).shape == (2, 3)
    assert paper.image_decoder(latent).shape == (2, 3, 128, 128)
    assert paper.text_decoder(latent, torch.randint(3, 66, (2, 7))).logits.shape == (2, 7, 66)
    speech = paper.speech_decoder(latent, torch.rand(2, 23, 80), frames)
    assert speech.mel.shape == (2, 23, 80)
    assert speech.linear.shape == (2, 23, 1025)
    assert speech.stop.shape == (2, 5)
    assert speech.steps.tolist() == [5, 3]


def test_paper_defaults_are_the_papers():
    config = VectorModel()
    assert (config.n_k, config.d_k, config.heads, config.embedding, config.frames_per_step) == (128, 256, 4, 512, 5)


def test_parameter_counts_of_the_base_recipe():
    words = [" " + "".join("abcdefgh"[i // 8**k % 8] for k in range(4)) for i in range(2000)]
    config = load_recipe("base").model
    model = SkipModal(config, AudioConfig(), ImageConfig(encoder="efficientnet_lite0"), Tokenizer(words, kinds.names()))
    assert count(model.bottleneck.memory) == 128 * 256 + 256 * 256 + 256
    assert count(model.adversary) == 2 * (256 * 256 + 256) + 256 * 3 + 3
    assert count(model.image_encoder.backbone) == 3_350_000
    assert not any(p.requires_grad for p in model.image_encoder.backbone.parameters())
    assert 2 * count(model) < 45.25e6  # bytes in fp16, which a wheel compresses


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_speech_names_the_sentence_behind_it(kind):
    model, batch = tiny_model(kind).eval(), tiny_batch()
    for name, encode in latents(model, batch):
        _, sentences = model.generate_speech(encode(slice(0, 2)), 30, 12)
        assert (sentences is None) == (kind == "vector" or name == "text")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beam", [1, 4])
def test_broken_weights_give_what_can_be_told_as_such(kind, beam):
    model, batch = tiny_model(kind).eval(), tiny_batch()
    for p in model.parameters():
        p.data.fill_(torch.nan)
    latent = model.encode_image(batch.images)
    assert not model.generate_text(latent, 12, beam).log_probability.isfinite().any()
    assert not model.generate_speech(latent, 30, 12, beam)[0].linear.isfinite().all()
