"""Global style tokens: Tacotron with them learns a batch by heart, and they change the sound."""

import torch

from skipmodal.comparators.tacotron import Tacotron
from tests.comparators.learning import learn
from tests.comparators.speaking import check_learns, speak, spoken_batch, texts
from tests.comparators.test_tacotron import SIZES as TACOTRON

SIZES = {**TACOTRON, "reference_channels": [2, 4], "reference_gru": 8, "tokens": 4, "heads": 2}


def test_it_learns_a_batch_by_heart():
    check_learns("gst", 200, **SIZES)


def test_style_tokens_change_the_sound_and_their_use_in_training_is_remembered():
    batch = spoken_batch()
    system, _, _ = learn("gst", 30, batch, **SIZES)
    styles, (ids, lengths) = system.styles, texts(batch)
    usage = styles.usage.clone()
    assert torch.allclose(usage.sum(1), torch.ones(2)) and not torch.allclose(usage, torch.full((2, 4), 0.25))
    with torch.no_grad():
        system.stop.bias.fill_(-99.0)
        average = speak(system, ids, lengths).mel
        each = []
        for token in torch.eye(4):
            styles.usage.copy_(token.expand(2, -1))
            each.append(speak(system, ids, lengths).mel)
            assert torch.equal(styles.usage[0], token)  # synthesis leaves it alone
    assert all((one - average).abs().max() > 1e-3 for one in each)
    assert (each[0] - each[1]).abs().max() > 1e-3


def test_in_training_the_style_is_the_targets():
    batch = spoken_batch()
    system, _, _ = learn("gst", 30, batch, **SIZES)
    ids, lengths = texts(batch)
    system.zero_grad()
    system(batch, {"mel"}).spoken.mel.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in system.reference.parameters())
    assert system.styles.bank.grad.abs().max() > 0
    with torch.no_grad():
        weights = system.styles.weights(system.reference(batch.mel, batch.mel_lengths))
        latent = system.encode_text(ids, lengths)
        own, others = (
            Tacotron.follow(system, system._styled(latent, each), batch.mel, batch.mel_lengths, None)[0]
            for each in (weights, weights.roll(1, 0))
        )
        followed, _ = system.follow(latent, batch.mel, batch.mel_lengths, None)
    torch.testing.assert_close(followed.mel, own.mel)
    assert (own.mel - others.mel).abs().amax((1, 2)).min() > 1e-5


def test_the_running_mean_is_that_of_the_weights():
    system, _, _ = learn("gst", 1, **SIZES)
    styles = system.styles.train()
    styles.seen.zero_()
    with torch.no_grad():
        given = [styles.weights(torch.randn(3, 8)) for _ in range(4)]
    assert torch.allclose(styles.usage, torch.cat(given).mean(0), atol=1e-6)
    styles.eval().weights(torch.randn(3, 8))
    assert torch.allclose(styles.usage, torch.cat(given).mean(0), atol=1e-6)
