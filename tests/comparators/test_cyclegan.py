"""CycleGAN: each loss asks the right thing of the side that it is for, and cycles are learned; pool and windows."""

import copy

import pytest
import torch
import torch.nn.functional as F

from skipmodal.comparators._critics import POOL, Pool, windows
from skipmodal.errors import UserError
from skipmodal.image import ImageConfig
from skipmodal.models.layers import ImageNorm, MaskedBatchNorm
from skipmodal.recipe import parse_recipe
from skipmodal.systems import build
from skipmodal.tokenizer import Tokenizer
from skipmodal.training.losses import compute_losses
from tests.comparators.learning import learn
from tests.models.tiny import AUDIO, tiny_batch

SIZES = {
    "d_k": 32, "embedding": 32, "image_channels": [8, 8, 16], "speech_channels": [4, 8], "speech_gru": 32,
    "prenet": [16, 16], "prenet_dropout": 0.0, "speech_decoder": 32, "speech_dropout": 0.0, "frames_per_step": 3,
    "postnet_channels": 8, "postnet_banks": 2, "critics": 4,
}  # fmt: skip
MAKERS = {"image_encoder", "speech_encoder", "from_image", "from_speech"}


def untrained():
    """A system, and the losses that it has."""
    torch.manual_seed(0)
    recipe = parse_recipe({"model": {"kind": "cyclegan", **SIZES}}, "cyclegan")
    return build(recipe.model, AUDIO, ImageConfig(size=16), Tokenizer()), set(recipe.loss.weights())


def losses():
    system, wanted = untrained()
    batch = tiny_batch(3, 2)
    return system, compute_losses(system(batch, wanted), batch, batch.linear(AUDIO), wanted)


def test_each_loss_reaches_the_side_that_it_is_for():
    system, found = losses()
    both = {"image_encoder", "image_decoder", "from_image", "speech_encoder", "speech_decoder", "from_speech"}
    image, speech = {"image_encoder", "from_image"}, {"speech_encoder", "from_speech"}
    expected = {
        "image": image | {"image_decoder"},
        **dict.fromkeys(("mel", "linear", "stop"), speech | {"speech_decoder"}),
        "cycle_image": both, "cycle_speech": both,
        "adversary_image": speech | {"image_decoder"}, "adversary_speech": image | {"speech_decoder"},
        "stop_image": image | {"speech_decoder"},
        "image_critic": {"image_critic"}, "speech_critic": {"speech_critic"},
    }  # fmt: skip
    assert set(found) == set(expected)
    for name, loss in found.items():
        system.zero_grad()
        loss.backward(retain_graph=True)
        reached = {
            part for part, block in system.named_children()
            if any(p.grad is not None and p.grad.abs().max() > 0 for p in block.parameters())
        }  # fmt: skip
        assert reached == expected[name], name


def test_critics_are_to_know_what_is_real_and_generators_to_fool_them():
    class Critic(torch.nn.Module):
        """0.3 of what is real, whose highest value is 0.5, and 0.6 of what was made."""

        def forward(self, x):
            return x.new_full((len(x),), 0.3 if x.max() == 0.5 else 0.6)

    system, _ = untrained()
    system.image_critic, system.speech_critic = Critic(), Critic()
    batch = tiny_batch(3, 2)
    batch.images.fill_(0.5)
    batch.mel.fill_(0.5)
    own = system(batch, {"adversary_image", "adversary_speech"}).own
    for name in ("image", "speech"):
        assert own[f"adversary_{name}"].item() == pytest.approx((0.6 - 1) ** 2)
        assert own[f"{name}_critic"].item() == pytest.approx((0.3 - 1) ** 2 + 0.6**2)


def test_pictures_learn_to_stop_where_the_recording_beside_them_does():
    system, _ = untrained()
    batch = tiny_batch(3, 2)
    stops, expected = torch.randn(3, 8), []
    system._speak = lambda latent, lengths: (torch.zeros(3, 22, 8), stops)
    for row, steps in zip(stops, (8, 5, 8), strict=True):  # of three frames; the third picture has the first recording
        target = torch.arange(steps) == steps - 1
        expected.append(-torch.where(target, 5 * F.logsigmoid(row[:steps]), F.logsigmoid(-row[:steps])))
    assert system(batch, {"stop_image"}).own["stop_image"].item() == pytest.approx(torch.cat(expected).mean().item())


def test_what_was_made_moves_no_running_statistics():
    system, wanted = untrained()
    system.train()
    before, batch = copy.deepcopy(system.state_dict()), tiny_batch(3, 2)
    found = []
    for some in (wanted, wanted - {"cycle_image", "cycle_speech"}):  # without the cycles nothing made is encoded
        system.load_state_dict(before)
        system(batch, some)
        found.append({name: value.clone() for name, value in system.state_dict().items() if "running" in name})
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name])
        assert (value != before[name]).any(), name
    norms = [module for module in system.modules() if isinstance(module, (ImageNorm, MaskedBatchNorm))]
    assert norms and all(norm.momentum == 0.1 for norm in norms)  # as before


def test_it_learns_its_cycles_by_heart():
    batch = tiny_batch(2, 2)
    system, first, last = learn("cyclegan", 150, batch, lr=0.005, **SIZES)
    assert last < 0.6 * first
    with torch.no_grad():
        drawn = system.generate_image(system.encode_speech(batch.mel, batch.mel_lengths))
        again, _ = system._speak(system.encode_image(drawn), batch.mel_lengths)
        other, _ = system._speak(system.encode_image(drawn.flip(0)), batch.mel_lengths)
        valid = torch.arange(batch.mel.shape[1]) < batch.mel_lengths[:, None]
        # The picture of a recording tells which recording it was.
        assert (again - batch.mel)[valid].abs().mean() < 0.8 * (other - batch.mel)[valid].abs().mean()
        speech, sentences = system.generate_speech(system.encode_image(batch.images), 30, 10)
        assert speech.lengths.tolist() == [24, 15] and not speech.capped.any()  # of 22 and 13, three a step
        assert sentences is None and speech.linear.shape[2] == AUDIO.n_linear


def test_batches_of_one_dataset_alone_are_refused():
    for sampling in ("alternate", "image-text"):
        with pytest.raises(UserError, match=r"data\.sampling must be mix"):
            parse_recipe({"model": {"kind": "cyclegan"}, "data": {"sampling": sampling}}, "cyclegan")


def test_it_reads_and_writes_no_text():
    system, _ = losses()
    with pytest.raises(UserError, match="a model of kind cyclegan reads no text"):
        system.encode_text(torch.ones(1, 2).long(), torch.tensor([2]))
    with pytest.raises(UserError, match="a model of kind cyclegan writes no text"):
        system.generate_text(None, 10)


def test_the_pool_gives_back_what_was_made_before():
    torch.manual_seed(0)
    pool = Pool(1)
    first = torch.arange(float(POOL))[:, None]
    assert torch.equal(pool(first), first)  # it is filled
    shown = pool(100 + first)
    old = shown[:, 0] < 100
    assert 10 < old.sum() < 40
    assert int((pool.items >= 100).sum()) > 5  # and takes what is new in its place


def test_windows_lie_within_the_recording():
    mel = torch.ones(20, 100, 3)
    lengths = torch.tensor([100, 70, 64, 10] * 5)
    parts = windows(mel, lengths)
    assert parts.shape == (20, 1, 64, 3)
    assert parts[:, 0, :, 0].sum(1).tolist() == [64, 64, 64, 10] * 5
