"""The whole model on a batch: what reaches what."""

import math
from dataclasses import replace

import pytest
import torch
from skipmodal.models.skipmodal import Outputs, SkipModal

from skipmodal.audio import AudioConfig
from skipmodal.config import ModelConfig, parse_recipe
from skipmodal.data.batches import Batch
from skipmodal.image import ImageConfig
from skipmodal.training.losses import compute_losses
from tests.conftest import TINY_MODEL

AUDIO = AudioConfig(n_fft=64, win_length=64, hop_length=16, n_mels=8)


def tiny_model(**changes) -> SkipModal:
    torch.manual_seed(0)
    config = parse_recipe({"model": {**TINY_MODEL, **changes}}, "tiny").model
    return SkipModal(config, AUDIO, ImageConfig(size=16))


def tiny_batch(n_a=2, n_b=3) -> Batch:
    torch.manual_seed(1)
    lengths = torch.tensor([9, 5, 7, 9, 3][: n_a + n_b])
    ids = torch.randint(3, 66, (n_a + n_b, 9)) * (torch.arange(9) < lengths[:, None])
    frames = torch.tensor([22, 13, 6][:n_b])
    mel = torch.rand(n_b, 22, 8) * (torch.arange(22) < frames[:, None])[:, :, None] if n_b else torch.zeros(0)
    images = torch.rand(n_a, 3, 16, 16) * 2 - 1 if n_a else torch.zeros(0)
    return Batch([], ids, lengths, images, mel, frames, torch.rand(n_b, 22 * 16 - 1) if n_b else torch.zeros(0))


def losses_of(model, batch, **options):
    linear = batch.linear(AUDIO) if len(batch.mel) else None
    return compute_losses(model(batch, **options), batch, linear)


def reached(model, loss) -> set[str]:
    """Names of the blocks to which a loss sends a gradient."""
    model.zero_grad()
    loss.backward(retain_graph=True)
    return {
        name for name, block in model.named_children()
        if any(p.grad is not None and p.grad.abs().max() > 0 for p in block.parameters())
    }  # fmt: skip


def test_losses_are_cross_modal_and_reach_the_blocks_of_equations_3_to_7():
    # In training T's batch norm ties all modalities together and every encoder gets a gradient: evaluate.
    model, batch = tiny_model().eval(), tiny_batch()
    middle = {"transformer", "memory"}
    speech_path = {"text_encoder", "speech_decoder", *middle}
    losses = losses_of(model, batch, text_from_text=True)
    assert reached(model, losses["image"]) == {"text_encoder", "image_decoder", *middle}
    assert reached(model, losses["mel"]) == speech_path
    assert reached(model, losses["linear"]) == speech_path
    assert reached(model, losses["stop"]) == speech_path
    assert reached(model, losses["text_from_image"]) == {"image_encoder", "text_decoder", *middle}
    assert reached(model, losses["text_from_speech"]) == {"speech_encoder", "text_decoder", *middle}
    assert reached(model, losses["text_from_text"]) == {"text_encoder", "text_decoder", *middle}
    # Text is what the others are drawn to: it takes no part itself.
    encoders = {"image_encoder", "text_encoder", "speech_encoder"}
    assert reached(model, losses["contrastive"]) == {*encoders, "transformer", "memory"}
    assert reached(model, losses["adversary"]) == {"image_encoder", "speech_encoder", "transformer", "classifier"}


def test_adversary_gradient_is_reversed_for_the_encoders_only():
    model, batch = tiny_model().eval(), tiny_batch()
    gradients = []
    for scale in (1.0, -1.0):
        model.zero_grad()
        losses_of(model, batch, adversary_scale=scale)["adversary"].backward()
        gradients.append(
            (model.image_encoder.layers[0].weight.grad.clone(), model.classifier.layers[0].weight.grad.clone())
        )
    (encoder, classifier), (encoder_straight, classifier_straight) = gradients
    torch.testing.assert_close(encoder, -encoder_straight)
    torch.testing.assert_close(classifier, classifier_straight)


def test_padding_changes_no_loss():
    model, batch = tiny_model().eval(), tiny_batch()
    before = losses_of(model, batch, text_from_text=True)
    # Longer padding, filled with what must not be seen.
    pad = torch.nn.functional.pad
    wider = Batch(
        [], pad(batch.ids, (0, 4)), batch.lengths, batch.images,
        pad(batch.mel, (0, 0, 0, 10)), batch.mel_lengths, pad(batch.wav, (0, 160)),
    )  # fmt: skip
    after = losses_of(model, wider, text_from_text=True)
    for name, loss in before.items():
        torch.testing.assert_close(after[name], loss, msg=f"{name} changed", rtol=1e-4, atol=1e-5)


def test_losses_by_hand():
    model, batch = tiny_model().eval(), tiny_batch()
    outputs = model(batch)
    losses = compute_losses(outputs, batch, batch.linear(AUDIO))
    speech = outputs.speech
    errors = [(speech.mel[i, :n] - batch.mel[i, :n]).abs().flatten() for i, n in enumerate(batch.mel_lengths)]
    torch.testing.assert_close(losses["mel"], torch.cat(errors).mean())
    torch.testing.assert_close(losses["image"], (outputs.images - batch.images).abs().mean())
    nats = [
        -outputs.text_from_image.logits[i, t].log_softmax(0)[batch.ids[i, t]]
        for i in range(2)
        for t in range(batch.lengths[i])
    ]
    torch.testing.assert_close(losses["text_from_image"], torch.stack(nats).mean())
    stops, weights = [], []
    for i, n in enumerate(batch.mel_lengths.tolist()):
        steps = -(-n // 5)
        p = speech.stop[i, :steps].sigmoid()
        stops += [-(1 - p[t]).log() for t in range(steps - 1)] + [-5 * p[steps - 1].log()]
        weights.append(steps)
    torch.testing.assert_close(losses["stop"], torch.stack(stops).sum() / sum(weights))
    log = outputs.modality_logits.log_softmax(1)
    expected = -(log[:2, 0].mean() + log[2:4, 1].mean() + log[4:7, 1].mean() + log[7:, 2].mean())
    torch.testing.assert_close(losses["adversary"], expected)


def test_the_contrastive_loss_falls_when_pairs_point_the_same_way():
    def loss(u, v):
        outputs = Outputs(torch.zeros(3, 3), [3, 0, 0, 0], pairs=((u, v), (u[:1], v[:1])))
        return compute_losses(outputs, tiny_batch(3, 0), None)["contrastive"].item()

    u = torch.eye(4)[:3] * torch.tensor([[1.0], [5.0], [0.1]])  # the cosine is what counts
    assert loss(u, 2 * u) < 1e-4
    assert loss(u, u.roll(1, 0)) > 10
    assert loss(torch.ones(3, 4), torch.ones(3, 4)) == pytest.approx(math.log(3))


def test_the_post_net_works_on_a_part():
    model, batch = tiny_model().eval(), tiny_batch()
    part = replace(batch, linear_part=(torch.tensor([2, 0, 1]), torch.tensor([10, 10, 5]), 10))
    assert model(part).speech.linear.shape[:2] == (3, 10)
    assert torch.equal(model(part).speech.mel, model(batch).speech.mel)


def test_either_half_may_be_empty():
    model = tiny_model()
    only_a, only_b = losses_of(model, tiny_batch(2, 0)), losses_of(model, tiny_batch(0, 3))
    assert set(only_a) == {"image", "text_from_image", "contrastive", "adversary"}
    assert set(only_b) == {"mel", "linear", "stop", "text_from_speech", "contrastive", "adversary"}


def test_ablations_build_and_train():
    for changes in ({"memory": "none"}, {"memory": "fc"}, {"transformer": False}):
        losses = losses_of(tiny_model(**changes), tiny_batch())
        torch.stack(list(losses.values())).sum().backward()


def test_image_to_speech_goes_through_the_memory():
    model = tiny_model().eval()
    model.memory.memory.data.zero_()  # an empty memory carries nothing
    u = model.encode_image(torch.rand(4, 3, 16, 16))
    assert (u == 0).all()


def test_paper_defaults_are_the_papers():
    config = ModelConfig()
    assert (config.n_k, config.d_k, config.heads, config.embedding, config.frames_per_step) == (128, 256, 4, 512, 5)
