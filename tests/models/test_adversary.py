"""The game of equation (1): C learns from L_C alone, encoders and T from L_T alone, which pulls towards text."""

import pytest
import torch
import torch.nn.functional as F

from skipmodal.training import loop
from skipmodal.training.losses import total_loss
from tests.models.tiny import KINDS, losses_of, reached, tiny_batch, tiny_model


@pytest.mark.parametrize("kind", KINDS)
def test_each_side_learns_from_its_own_loss(kind):
    model, batch = tiny_model(kind).eval(), tiny_batch()
    losses = losses_of(model, batch, "adversary")
    assert set(losses) == {"adversary", "classifier"}
    # Text is what the others are drawn to: it takes no part itself.
    assert reached(model, losses["adversary"]) == {"image_encoder", "speech_encoder", "transformer"}
    assert reached(model, losses["classifier"]) == {"adversary"}
    assert all(p.grad is None for name, p in model.named_parameters() if not name.startswith("adversary."))


@pytest.mark.parametrize("kind", KINDS)
def test_both_losses_by_hand(kind):
    model, batch = tiny_model(kind).eval(), tiny_batch()
    outputs = model(batch, {"adversary"})
    losses = losses_of(model, batch, "adversary")
    log_p = [model.adversary(latent.z[latent.mask]).log_softmax(1)
             for latent in (outputs.image, outputs.text_a, outputs.text_b, outputs.speech)]  # fmt: skip
    told = [-rows[:, modality].mean() for rows, modality in zip(log_p, (0, 1, 1, 2), strict=True)]
    torch.testing.assert_close(losses["classifier"], sum(told))
    torch.testing.assert_close(losses["adversary"], -log_p[0][:, 1].mean() - log_p[3][:, 1].mean())


def test_text_alone_has_nothing_to_fool():
    model, batch = tiny_model().eval(), tiny_batch()
    text = model(batch, {"adversary"}).text_b
    told, fooled = model.adversary.game({"image": [None], "text": [None, text], "speech": [None]})
    assert told > 0 and fooled == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_on_t_s_loss_makes_pictures_and_speech_look_more_like_text_to_c(kind):
    model, batch = tiny_model(kind).eval(), tiny_batch()
    layer = model.adversary.layers[-1]
    layer.weight.data *= 5  # a C with an opinion

    def like_text():
        with torch.no_grad():
            outputs = model(batch, {"adversary"})
            rows = [latent.z[latent.mask] for latent in (outputs.image, outputs.speech)]
            return torch.stack([F.softmax(model.adversary(z), 1)[:, 1].log().mean() for z in rows])

    before, frozen = like_text(), [p.clone() for p in model.adversary.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    for _ in range(5):
        optimizer.zero_grad()
        losses_of(model, batch, "adversary")["adversary"].backward()
        optimizer.step()
    assert (like_text() > before).all()
    assert all(torch.equal(p, old) for p, old in zip(model.adversary.parameters(), frozen, strict=True))


def test_c_learns_to_tell_modalities_apart_from_its_own_loss():
    model, batch = tiny_model("vector").eval(), tiny_batch()
    optimizer = torch.optim.Adam(model.adversary.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        losses.append(losses_of(model, batch, "adversary")["classifier"])
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]


def test_the_ramp_is_of_t_s_side_alone():
    losses = {name: torch.tensor(value) for name, value in (("mel", 2.0), ("adversary", 3.0), ("classifier", 5.0))}
    weights = {"mel": 0.5, "adversary": 0.1}
    assert total_loss(losses, weights).item() == pytest.approx(0.5 * 2 + 0.1 * 3 + 5)
    assert total_loss(losses, weights, ramp=0.25).item() == pytest.approx(0.5 * 2 + 0.25 * 0.1 * 3 + 5)
    assert total_loss(losses, weights, ramp=0.0).item() == pytest.approx(0.5 * 2 + 5)


def test_the_rate_of_c_does_not_depend_on_alpha():
    model, batch = tiny_model("vector").eval(), tiny_batch()
    gradients = []
    for alpha in (0.01, 1.0):
        model.zero_grad()
        total_loss(losses_of(model, batch, "adversary"), {"adversary": alpha}).backward()
        gradients.append([(p.grad.clone(), model.bottleneck.transformer.input.weight.grad.clone())
                          for p in model.adversary.parameters()])  # fmt: skip
    for (c, t), (c_more, t_more) in zip(*gradients, strict=True):
        torch.testing.assert_close(c_more, c)
        torch.testing.assert_close(t_more, 100 * t)


def test_c_learns_at_its_full_rate_whatever_the_other_losses_weigh():
    steps = []
    for weight in (1.0, 1e6):
        model, batch = tiny_model().eval(), tiny_batch()
        losses = losses_of(model, batch, "adversary", "mel", "letters")
        (losses["classifier"] + weight * losses["mel"]).backward()
        norm = loop._clip(model, 0.01)
        assert norm > 0.01
        steps.append([p.grad.clone() for p in model.adversary.parameters()])
        others = [
            p.grad.norm() for name, p in model.named_parameters() if p.grad is not None and "adversary" not in name
        ]
        torch.testing.assert_close(torch.stack(others).norm(), torch.tensor(0.01), rtol=0.01, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(*steps, strict=True))
