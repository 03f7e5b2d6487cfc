"""Self-critical training: its gradient, that it raises the reward, and how a recipe asks for it."""

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from skipmodal import text
from skipmodal.errors import UserError
from skipmodal.models.latent import Latent
from skipmodal.tokenizer import Tokenizer
from skipmodal.training.loop import train
from skipmodal.training.self_critical import DRAWS, SelfCritical
from tests.models.tiny import tiny_model

CAPTIONS = [["a dog runs", "the dog is running"], ["two men", "two men sit"], ["red car"]]


def latent(seed=0):
    u = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(seed))
    return Latent(u, u, torch.tensor([3, 3]))


def test_what_scores_above_the_other_draws_becomes_likelier(monkeypatch):
    decoder = tiny_model().text_decoder
    drawn = ["a dog runs", "a cat", "x", "zzz", "dogs", "two men", "y", "men"]
    ids = pad_sequence([torch.tensor(text.encode(caption)) for caption in drawn], batch_first=True)
    monkeypatch.setattr(type(decoder), "sample", lambda self, latent, longest: ids)

    def likelihoods():
        with torch.no_grad():
            log_p = decoder.eval()(latent().rows(torch.arange(2).repeat_interleave(DRAWS)), ids).logits.log_softmax(-1)
        return (log_p.gather(2, ids[:, :, None])[:, :, 0] * (ids != text.PAD)).sum(1)

    critic, before = SelfCritical(CAPTIONS, Tokenizer(), 20), likelihoods()
    decoder.train()
    optimizer = torch.optim.SGD(decoder.parameters(), lr=0.01)
    loss, reward = critic(decoder, latent(), CAPTIONS[:2])
    assert decoder.training
    loss.backward()
    optimizer.step()
    rise = likelihoods() - before
    assert rise[0] > 0 and rise[5] > 0  # the two right ones
    assert rise[[1, 2, 3]].max() < rise[0] and rise[[4, 6]].max() < rise[5]
    assert 0 < reward < 10


def test_a_caption_that_breaks_off_is_worth_less():
    critic = SelfCritical(CAPTIONS, Tokenizer(), 20)
    ids = torch.tensor([text.encode("two men"), [*text.encode("two men")[:-1], text.PAD]])
    ended, broken = critic._rewards(torch.cat([ids, ids]), CAPTIONS[1:2])[0, :2].tolist()
    assert ended > broken > 0


def test_training_on_it_raises_the_reward():
    torch.manual_seed(0)
    decoder = tiny_model(text_decoder=32).text_decoder
    critic = SelfCritical(CAPTIONS, Tokenizer(), 12)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.02)
    target = pad_sequence([torch.tensor(text.encode(each[0])) for each in CAPTIONS[:2]], batch_first=True)
    for _ in range(6):  # some likelihood first: nothing is learned from draws that are all worth nothing
        logits = decoder(latent(), target).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=text.PAD).backward()
        optimizer.step()
        optimizer.zero_grad()
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.005)
    rewards = []
    for _ in range(80):
        loss, reward = critic(decoder, latent(), CAPTIONS[:2])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        rewards.append(reward.item())
    assert sum(rewards[-16:]) > 1.5 * sum(rewards[:16])


@pytest.mark.parametrize("kind", ["vector", "tokens"])
def test_a_recipe_asks_for_it_and_logs_the_reward(recipe, tmp_path, capsys, kind):
    run = train(recipe(model={"kind": kind}, loss={"self_critical": 0.5}, optim={"lr": 0.001}), tmp_path / "run")
    assert run.is_dir()
    assert " reward " in capsys.readouterr().err
    with pytest.raises(UserError, match=r"needs loss\.text_from_image too"):
        train(recipe(loss={"self_critical": 0.5, "text_from_image": 0.0}), tmp_path / "other")
