"""T and M: equation 2, the ablations, and that all modalities go through the one bottleneck together."""

import math

import pytest
import torch
from torch import nn

from skipmodal.config import VectorModel
from skipmodal.models.bottleneck import Bottleneck, Memory, ModalityTransformer, build_memory
from skipmodal.models.latent import Encoded
from tests.models.tiny import KINDS, losses_of, tiny_batch, tiny_model

PAPER = VectorModel()


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("kind", "width"), [("attention", 4), ("wide", 8)])
def test_memory_is_equation_2(kind, width):
    torch.manual_seed(0)
    memory = Memory(VectorModel(n_k=6, d_k=8, heads=2, memory=kind))
    z = torch.randn(3, 8)
    assert memory.memory.shape == (6, width)  # the appendix: n_k x d_k / heads
    value = torch.tanh(memory.memory)
    key = value @ memory.key.weight.T + memory.key.bias  # the 1x1 convolution
    value = value if kind == "wide" else torch.cat([value, value], 1)  # the same for every head
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


@pytest.mark.parametrize("kind", ["attention", "wide"])
def test_every_basis_vector_is_written_to_and_u_depends_on_z(kind):
    torch.manual_seed(0)
    memory = Memory(VectorModel(memory=kind))
    z = torch.tanh(torch.randn(16, 256))
    u = memory(z)
    assert u.std(0).mean() > 0.02
    nn.init.kaiming_uniform_(memory.key.weight, a=math.sqrt(5))  # the usual initialisation
    assert memory(z).std(0).mean() < 0.02
    memory(z).square().sum().backward()
    assert (memory.memory.grad.abs().sum(1) > 0).all()


def test_memory_replaced_by_layers_of_as_many_parameters():
    for memory, layers in (("attention", "fc"), ("wide", "wide_fc")):
        size = count(Memory(VectorModel(memory=memory)))
        assert abs(count(build_memory(VectorModel(memory=layers))) - size) <= 0.02 * size
    z = torch.randn(2, 256)
    assert build_memory(VectorModel(memory="none"))(z) is z


def test_transformer_can_be_left_out():
    assert count(ModalityTransformer(VectorModel(transformer=False))) == 512 * 256 + 256


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changes", [{"memory": "none"}, {"memory": "fc"}, {"transformer": False}])
def test_ablations_build_and_train(kind, changes):
    torch.stack(list(losses_of(tiny_model(kind, **changes), tiny_batch()).values())).sum().backward()


def test_all_modalities_share_one_statistic_and_padding_none():
    torch.manual_seed(0)
    bottleneck = Bottleneck(VectorModel(embedding=6, d_k=8, n_k=4, heads=2))
    e = torch.randn(2, 3, 6), torch.randn(4, 2, 6)
    lengths = torch.tensor([3, 1]), torch.tensor([2, 2, 1, 2])
    e[0][1, 1:] = 1e6  # padding
    first, second = bottleneck([Encoded(part, n, rate=n.shape[0]) for part, n in zip(e, lengths, strict=True)])
    valid = torch.cat([e[0][first.mask], e[1][second.mask]])
    z = bottleneck.transformer(valid)
    torch.testing.assert_close(torch.cat([first.z[first.mask], second.z[second.mask]]), z)
    torch.testing.assert_close(torch.cat([first.u[first.mask], second.u[second.mask]]), bottleneck.memory(z))
    assert not first.u[~first.mask].any() and not second.u[~second.mask].any()
    assert (first.rate, second.rate) == (2, 4)
    (alone,) = bottleneck([Encoded(e[0], lengths[0])])
    assert not torch.allclose(alone.z, first.z)  # its statistics are its own
    bottleneck.eval()
    together = bottleneck([Encoded(part, n) for part, n in zip(e, lengths, strict=True)])[0]
    torch.testing.assert_close(bottleneck([Encoded(e[0], lengths[0])])[0].z, together.z)


@pytest.mark.parametrize("kind", KINDS)
def test_image_to_speech_goes_through_the_memory(kind):
    model, batch = tiny_model(kind).eval(), tiny_batch()
    model.bottleneck.memory.memory.data.zero_()  # an empty memory carries nothing: all pictures sound the same
    latent = model.encode_image(batch.images)
    assert not latent.u.any()
    speech, _ = model.generate_speech(latent, 30, 12)
    torch.testing.assert_close(speech.mel[0], speech.mel[1])
