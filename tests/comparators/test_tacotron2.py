"""Tacotron 2 learns a batch by heart, sees where it attended before, corrects its mel, and sounds alike each time."""

import torch

from tests.comparators.learning import learn
from tests.comparators.speaking import TINY_POSTNET, check_learns, speak, spoken_batch, texts

SIZES = {
    "text_channels": 32, "text_dropout": 0.0, "prenet": [32], "prenet_dropout": 0.0, "attention": 16, "filters": 4,
    "decoder": 128, "dropout": 0.0, "refine_channels": 8, "refine_dropout": 0.0, "frames_per_step": 2, **TINY_POSTNET,
}  # fmt: skip


def test_it_learns_a_batch_by_heart():
    check_learns("tacotron2", 120, **SIZES)


def test_a_sentence_sounds_alike_each_time_though_the_prenet_drops_in_synthesis():
    batch = spoken_batch()
    ids, lengths = texts(batch)
    system, _, _ = learn("tacotron2", 1, batch, **{**SIZES, "prenet_dropout": 0.5})
    with torch.no_grad():
        system.stop.bias.fill_(-99.0)
    first, again, alone = speak(system, ids, lengths), speak(system, ids, lengths), speak(system, ids[1:], lengths[1:])
    assert torch.equal(first.mel, again.mel)
    assert torch.allclose(first.mel[1:], alone.mel, atol=1e-5)
    system.prenet.dropout = 0.0
    assert not torch.allclose(first.mel, speak(system, ids, lengths).mel, atol=1e-3)


def test_the_residual_post_net_corrects_the_mel():
    batch = spoken_batch()
    system, _, _ = learn("tacotron2", 30, batch, **SIZES)
    coarse, lengths = torch.rand(2, 9, 8), torch.tensor([9, 4])
    with torch.no_grad():
        correction = system.refine(coarse, lengths) - coarse
    assert correction[0].abs().max() > 1e-3 and not correction[1, 4:].any()
    system.zero_grad()
    outputs = system(batch, {"mel", "coarse"})
    outputs.own["coarse"].backward(retain_graph=True)  # the mel before it
    assert all(p.grad is None for p in system.refiner.parameters())
    outputs.spoken.mel.mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in system.refiner.parameters())


def test_where_it_attended_before_changes_what_it_attends_to():
    batch = spoken_batch()
    system, _, _ = learn("tacotron2", 1, batch, **SIZES)
    rnn, latent = system.attention_rnn, system.encode_text(*texts(batch))
    state = rnn.start(latent)
    x = torch.zeros(3, 1, 32)
    _, weights, after = rnn(x, state)
    torch.testing.assert_close(after.context, (weights @ latent.u)[:, 0])
    elsewhere = state._replace(weights=state.weights + torch.eye(9)[0])
    assert not torch.allclose(weights, rnn(x, elsewhere)[1], atol=1e-4)
    assert torch.equal(after.weights[:, 0], weights[:, 0]) and torch.equal(after.weights[:, 1], weights[:, 0])
    _, second, after = rnn(x, after)
    assert torch.allclose(after.weights[:, 1], weights[:, 0] + second[:, 0])
