"""The critic of spectrograms: each side learns from its own loss, and a blur is told from what was blurred."""

import torch
import torch.nn.functional as F

from skipmodal.config import TokensLoss
from skipmodal.models.realism import SpectrogramCritic
from skipmodal.training.step import TrainingStep
from tests.models.tiny import AUDIO, reached, tiny_batch, tiny_model


def _spectrograms(items=8, frames=24, bands=65):
    return torch.rand(items, frames, bands)


def _blurred(x):
    return F.avg_pool1d(x, 9, 1, 4)


def test_each_side_has_a_gradient_of_its_own_loss_alone():
    torch.manual_seed(0)
    critic, made, recorded = SpectrogramCritic(), _spectrograms(), _spectrograms()
    made.requires_grad_()
    of_critic, of_made = critic.game(made, recorded, torch.full((8,), 24))
    (gradient,) = torch.autograd.grad(of_made, made, retain_graph=True)
    assert gradient.abs().sum() > 0
    of_made.backward()
    assert all(p.grad is None for p in critic.parameters())
    made.grad = None
    of_critic.backward()
    assert made.grad is None and all(p.grad is not None and p.grad.abs().sum() > 0 for p in critic.parameters())


def test_padding_is_not_looked_at():
    torch.manual_seed(0)
    critic, made, recorded = SpectrogramCritic(), _spectrograms(), _spectrograms()
    lengths = torch.full((8,), 11)
    with torch.no_grad():
        before = critic.game(made, recorded, lengths)
        made[:, 11:], recorded[:, 11:] = 7.0, -7.0
        assert torch.equal(torch.stack(before), torch.stack(critic.game(made, recorded, lengths)))


def test_it_learns_to_tell_a_blur_which_then_learns_to_be_none():
    torch.manual_seed(0)
    critic = SpectrogramCritic()
    optimizer = torch.optim.Adam(critic.parameters(), 2e-3)
    lengths = torch.full((8,), 24)

    def step(made, recorded):
        loss, _ = critic.game(made, recorded, lengths)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for _ in range(80):
        step(_blurred(_spectrograms()), _spectrograms())
    recorded = _spectrograms()
    with torch.no_grad():
        assert critic(recorded)[-1].mean() > critic(_blurred(recorded))[-1].mean() + 0.5
    made = _blurred(recorded).requires_grad_()
    learner = torch.optim.Adam([made], 0.02)
    before = made.std(2).mean().item()
    for _ in range(40):
        learner.zero_grad()
        critic.game(made, recorded, lengths)[1].backward()
        learner.step()
    assert made.std(2).mean().item() > 1.3 * before


def test_in_training_it_judges_what_d_spch_makes_of_b_s_texts():
    model, batch = tiny_model().eval(), tiny_batch()
    loss = TokensLoss(**dict.fromkeys(TokensLoss().weights(), 0.0), realism=1.0)
    losses = TrainingStep(model, AUDIO, loss, None)(batch)
    assert set(losses) == {"realism", "critic"}
    assert reached(model, losses["critic"]) == {"speech_critic"}
    assert "speech_decoder" in reached(model, losses["realism"])
    assert "speech_critic" not in reached(model, losses["realism"])
