"""Shapes, parameter counts, masks and gradients of every block, against the paper's settings."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from skipmodal.models.skipmodal import SkipModal
from torch import nn

from skipmodal.audio import AudioConfig
from skipmodal.config import ModelConfig
from skipmodal.image import ImageConfig
from skipmodal.models.bottleneck import Memory, ModalityClassifier, ModalityTransformer, build_memory
from skipmodal.models.decoders import ImageDecoder, SpeechDecoder, TextDecoder
from skipmodal.models.encoders import ImageEncoder, SpeechEncoder, TextEncoder
from skipmodal.models.layers import CBHG, BiGRU, MaskedBatchNorm, RunningNorm, length_mask, reverse_gradient

PAPER = ModelConfig()


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
    "transformer": conv(512, 256) + 2 * (conv(256, 256) + norm(256)),
    "classifier": 2 * conv(256, 256) + conv(256, 3),
    "memory": 128 * 256 + conv(256, 256),
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
    return SkipModal(PAPER, AudioConfig(), ImageConfig())


@pytest.mark.parametrize("block", EXPECTED)
def test_parameter_counts_are_the_papers(paper, block):
    assert sum(p.numel() for p in getattr(paper, block).parameters()) == EXPECTED[block]


def test_no_block_is_left_out(paper):
    assert set(EXPECTED) == {name for name, _ in paper.named_children()}


def test_shapes_of_the_paper(paper):
    paper.eval()
    lengths, frames = torch.tensor([7, 4]), torch.tensor([23, 12])
    with torch.no_grad():
        assert paper.image_encoder(torch.rand(2, 3, 128, 128)).shape == (2, 512)
        assert paper.text_encoder(torch.randint(3, 66, (2, 7)), lengths).shape == (2, 512)
        e = paper.speech_encoder(torch.rand(2, 23, 80), frames)
        assert e.shape == (2, 512)
        z = paper.transformer(e)
        assert z.shape == (2, 256)
        assert z.abs().max() <= 1
        assert paper.classifier(z).shape == (2, 3)
        u = paper.memory(z)
        assert u.shape == (2, 256)
        assert paper.image_decoder(u).shape == (2, 3, 128, 128)
        assert paper.text_decoder(u, torch.randint(3, 66, (2, 7))).shape == (2, 7, 66)
        speech = paper.speech_decoder(u, torch.rand(2, 23, 80), frames)
    assert speech.mel.shape == (2, 23, 80)
    assert speech.linear.shape == (2, 23, 1025)
    assert speech.stop.shape == (2, 5)
    assert speech.steps.tolist() == [5, 3]


def test_memory_is_equation_2():
    torch.manual_seed(0)
    memory = Memory(ModelConfig(n_k=6, d_k=8, heads=2))
    z = torch.randn(3, 8)
    value = torch.tanh(memory.memory)  # (n_k, d_k)
    key = value @ memory.key.weight.T + memory.key.bias  # the 1x1 convolution
    expected = torch.empty(3, 8)
    for item in range(3):
        for part in (slice(0, 4), slice(4, 8)):  # the two heads
            scores = torch.stack([z[item, part] @ key[k, part] / math.sqrt(8) for k in range(6)])
            weights = scores.exp() / scores.exp().sum()
            expected[item, part] = sum(weights[k] * value[k, part] for k in range(6))
    torch.testing.assert_close(memory(z), expected)
    torch.testing.assert_close(
        torch.einsum("hnk,hkd->nhd", memory.weights(z), value.unflatten(1, (2, 4)).transpose(0, 1)).flatten(1), expected
    )


def test_every_basis_vector_is_written_to_and_u_depends_on_z():
    torch.manual_seed(0)
    memory = Memory(PAPER)
    z = torch.tanh(torch.randn(16, 256))
    u = memory(z)
    assert u.std(0).mean() > 0.02
    nn.init.kaiming_uniform_(memory.key.weight, a=math.sqrt(5))  # the usual initialisation
    assert memory(z).std(0).mean() < 0.02
    memory(z).square().sum().backward()
    assert (memory.memory.grad.abs().sum(1) > 0).all()


def test_memory_replaced_by_layers_of_as_many_parameters():
    count = sum(p.numel() for p in build_memory(ModelConfig(memory="fc")).parameters())
    assert abs(count - EXPECTED["memory"]) <= 0.005 * EXPECTED["memory"]
    z = torch.randn(2, 256)
    assert build_memory(ModelConfig(memory="none"))(z) is z


def test_transformer_can_be_left_out():
    layers = ModalityTransformer(ModelConfig(transformer=False))
    assert sum(p.numel() for p in layers.parameters()) == conv(512, 256)


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_gradient_reversal_sign_and_scale(scale):
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = reverse_gradient(x, scale)
    assert torch.equal(y, x)
    (y * torch.tensor([3.0, 5.0])).sum().backward()
    assert torch.equal(x.grad, -scale * torch.tensor([3.0, 5.0]))


def test_the_adversary_pulls_the_transformer_away_from_what_the_classifier_wants():
    torch.manual_seed(0)
    transformer, classifier = ModalityTransformer(PAPER).eval(), ModalityClassifier(PAPER)
    e, label = torch.randn(4, 512), torch.tensor([0, 0, 2, 2])

    def gradient(reverse):
        transformer.zero_grad()
        z = transformer(e)
        logits = classifier(reverse_gradient(z) if reverse else z)
        nn.functional.cross_entropy(logits, label).backward()
        return transformer.input.weight.grad.clone()

    assert torch.allclose(gradient(True), -gradient(False))
    assert gradient(False).abs().max() > 0


LENGTHS = torch.tensor([9, 4, 1])


def test_masked_batch_norm_sees_valid_positions_only():
    torch.manual_seed(0)
    x, mask = torch.randn(3, 9, 5), length_mask(LENGTHS, 9)
    masked, plain = MaskedBatchNorm(5), nn.BatchNorm1d(5)
    x[~mask] = 1e6  # padding that must not matter
    y = masked(x, mask)
    torch.testing.assert_close(y[mask], plain(x[mask]))
    torch.testing.assert_close(masked.running_mean, plain.running_mean)
    torch.testing.assert_close(masked.running_var, plain.running_var)
    assert (y[~mask] == 0).all()


def test_bidirectional_gru_reads_each_item_within_its_length():
    torch.manual_seed(0)
    gru, reference = BiGRU(4, 3), nn.GRU(4, 3, batch_first=True, bidirectional=True)
    for ours, suffix in ((gru.ahead, ""), (gru.back, "_reverse")):
        for name, parameter in ours.named_parameters():
            getattr(reference, name + suffix).data.copy_(parameter.data)
    x = torch.randn(3, 9, 4)
    y = gru(x, LENGTHS)
    for i, n in enumerate(LENGTHS):
        torch.testing.assert_close(y[i, :n], reference(x[i : i + 1, :n])[0][0])


@pytest.mark.parametrize("training", [False, True])
def test_cbhg_ignores_padding(training):
    torch.manual_seed(0)
    block = CBHG(6, 4, 5, projection=7).train(training)
    x, mask = torch.randn(3, 9, 6), length_mask(LENGTHS, 9)
    noisy = torch.where(mask[:, :, None], x, torch.tensor(1e3))
    wider = nn.functional.pad(noisy, (0, 0, 0, 5), value=-1e3)
    y = block(x, LENGTHS)
    torch.testing.assert_close(block(noisy, LENGTHS), y)
    torch.testing.assert_close(block(wider, LENGTHS)[:, :9], y)
    assert (y[~mask] == 0).all()


def padded_equals_single(encode, *inputs, lengths):
    together = encode(*inputs, lengths)
    for i, n in enumerate(lengths):
        torch.testing.assert_close(
            together[i], encode(*(x[i : i + 1, :n] for x in inputs), lengths[i : i + 1])[0], rtol=1e-4, atol=1e-5
        )


def test_encoders_of_a_padded_batch_equal_single_items():
    torch.manual_seed(0)
    text = TextEncoder(PAPER).eval()
    padded_equals_single(text, torch.randint(1, 66, (3, 9)), lengths=LENGTHS)
    for frames in ([31, 16, 3], [32, 29, 1]):  # both parities at both strides
        speech = SpeechEncoder(PAPER, 80).eval()
        padded_equals_single(speech, torch.rand(3, max(frames), 80), lengths=torch.tensor(frames))


def test_text_encoder_depends_on_order():
    torch.manual_seed(0)
    encoder, ids = TextEncoder(PAPER).eval(), torch.randint(3, 66, (1, 8))
    assert not torch.allclose(encoder(ids, torch.tensor([8])), encoder(ids.flip(1), torch.tensor([8])))


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
def test_image_blocks_at_other_sizes(size):
    assert ImageDecoder(PAPER, size)(torch.randn(2, 256)).shape == (2, 3, size, size)
    assert ImageEncoder(ModelConfig(embedding=100))(torch.rand(2, 3, size, size)).shape == (2, 100)


@pytest.mark.parametrize("context", [False, True])
def test_text_decoder_fed_its_own_output_is_teacher_forcing_on_it(context):
    torch.manual_seed(0)
    decoder = TextDecoder(ModelConfig(text_context=context)).eval()
    u = torch.randn(3, 256)
    ids = decoder.generate(u, 12).ids
    logits = decoder(u, ids)
    logits[..., :2] = -torch.inf
    valid = ids != 0
    assert torch.equal(logits.argmax(-1)[valid], ids[valid])
    assert len({tuple(row) for row in ids.tolist()}) > 1


def test_text_decoder_is_causal():
    decoder, u, ids = TextDecoder(PAPER).eval(), torch.randn(1, 256), torch.randint(3, 66, (1, 6))
    changed = ids.clone()
    changed[0, 3] = (ids[0, 3] - 3 + 1) % 63 + 3
    before, after = decoder(u, ids), decoder(u, changed)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_speech_decoder_steps_equal_one_fused_call():
    torch.manual_seed(0)
    decoder = SpeechDecoder(PAPER, 80, 33).eval()
    u, mel = torch.randn(2, 256), torch.rand(2, 23, 80)
    fused = decoder(u, mel, torch.tensor([23, 20]))
    gru, lstm = decoder._initial_state(u)
    frame = torch.zeros(2, 1, 80)
    for step in range(5):
        out, stop, gru, lstm = decoder._steps(frame, u, gru, lstm)
        target = fused.mel[:, 5 * step : 5 * step + 5]
        torch.testing.assert_close(out[:, : target.shape[1]], target)
        torch.testing.assert_close(stop[:, 0], fused.stop[:, step])
        frame = mel[:, 5 * step + 4 : 5 * step + 5]


def test_speech_decoder_fed_its_own_output_is_teacher_forcing_on_it():
    torch.manual_seed(0)
    decoder, u = SpeechDecoder(PAPER, 80, 33).eval(), torch.randn(2, 256)
    decoder.stop.bias.data.fill_(-100.0)
    free = decoder.generate(u, 30)
    forced = decoder(u, free.mel, free.lengths)
    assert free.capped.all()
    torch.testing.assert_close(forced.mel, free.mel)
    torch.testing.assert_close(forced.linear, free.linear)


def test_speech_decoder_batch_equals_singles_when_items_stop_at_different_steps():
    torch.manual_seed(0)
    decoder, u = SpeechDecoder(PAPER, 80, 33).eval(), 3 * torch.randn(6, 256)
    decoder.stop.weight.data.mul_(30)
    with torch.no_grad():
        logits = decoder(u, torch.rand(6, 60, 80), torch.full((6,), 60)).stop
        decoder.stop.bias.data.sub_(logits.quantile(0.85))
    together = decoder.generate(u, 60)
    assert together.lengths.unique().numel() > 1
    for i, n in enumerate(together.lengths):
        alone = decoder.generate(u[i : i + 1], 60)
        assert alone.lengths[0] == n
        assert alone.capped[0] == together.capped[i]
        torch.testing.assert_close(alone.linear[0, :n], together.linear[i, :n], rtol=1e-4, atol=1e-5)


def test_text_decoder_stops_or_says_that_it_was_cut():
    decoder, u = TextDecoder(PAPER).eval(), torch.randn(2, 256)
    decoder.output.weight.data.zero_()
    decoder.output.bias.data[2] = 1.0  # end of sentence
    ids, capped, *_ = decoder.generate(u, 20)
    assert ids.shape == (2, 1)
    assert not capped.any()
    decoder.output.bias.data[2] = -1.0
    ids, capped, *_ = decoder.generate(u, 20)
    assert ids.shape == (2, 20)
    assert capped.all()
    assert (ids > 2).all()


def test_running_norm_in_training_is_what_it_is_in_use():
    torch.manual_seed(0)
    norm, x = RunningNorm(4), torch.randn(50, 4) * 3 + 2
    norm.weight.data.uniform_(0.5, 2)
    before = copy.deepcopy(norm).eval()(x)
    assert torch.equal(norm.train()(x), before)  # whatever else is in the batch
    for _ in range(1000):
        norm(x)
    torch.testing.assert_close(norm.running_mean, x.mean(0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(norm.running_var, x.var(0), rtol=1e-3, atol=1e-3)
    x.requires_grad_()
    norm(x)[0].sum().backward()
    assert x.grad[0].abs().min() > 0 and not x.grad[1:].any()


def test_running_norm_is_a_norm_from_the_second_batch_on_and_then_moves_slowly():
    torch.manual_seed(0)
    norm = RunningNorm(4)
    batches = torch.randn(30, 50, 4) * 3 + 2
    for n, batch in enumerate(batches, 1):
        norm(batch)
        torch.testing.assert_close(norm.running_mean, batches[:n].mean((0, 1)))
    torch.testing.assert_close(norm(batches[0]).mean(0), torch.zeros(4), rtol=0, atol=0.5)
    torch.testing.assert_close(norm(batches[0]).std(0), torch.ones(4), rtol=0.3, atol=0)
    norm.num_batches_tracked += 1000
    before = norm.running_mean.clone()
    norm(batches[0] + 100)
    torch.testing.assert_close(norm.running_mean - before, 0.01 * (batches[0].mean(0) + 100 - before))
