"""The refiner: it draws what recordings have and a prediction lacks, the same each time, and never teaches D_spch."""

import torch

from skipmodal.models.decoders.refiner import SCALE, STEPS, TEMPERATURE, Refiner
from skipmodal.models.layers import length_mask
from tests.models.tiny import AUDIO, losses_of, tiny_batch, tiny_model


def distance(matching):
    return (
        (matching.velocity - matching.target).square()[length_mask(matching.lengths, matching.target.shape[1])].mean()
    )


def test_it_draws_the_ripples_that_a_prediction_lacks():
    torch.manual_seed(0)
    refiner = Refiner(2, 8)
    optimizer = torch.optim.AdamW(refiner.parameters(), 2e-3)
    predicted, lengths = torch.rand(6, 1, 8).expand(6, 20, 8), torch.tensor([20, 20, 20, 20, 14, 9])
    ripples = 2 * SCALE * torch.sign(predicted - 0.5) * (torch.arange(8) % 2 * 2 - 1)
    for _ in range(250):
        optimizer.zero_grad()
        distance(refiner.match(predicted, predicted + ripples, lengths)).backward()
        optimizer.step()
    valid = length_mask(lengths, 20)
    with torch.no_grad():
        left = (refiner.refine(predicted, lengths) - predicted - ripples)[valid].abs().mean()
    assert left < 0.25 * ripples[valid].abs().mean()


def test_fresh_it_adds_noise_alone_and_padding_changes_nothing():
    torch.manual_seed(0)
    refiner, mel, lengths = Refiner(3, 8), torch.rand(3, 30, 8), torch.tensor([30, 17, 5])
    torch.testing.assert_close(refiner.refine(mel, lengths), mel + SCALE * TEMPERATURE * refiner.noise[:30])
    torch.nn.init.normal_(refiner.output.weight, std=0.1)
    with torch.no_grad():
        together = refiner.refine(mel, lengths)
        for i, n in enumerate(lengths):
            alone = refiner.refine(mel[i : i + 1, :n], lengths[i : i + 1])
            torch.testing.assert_close(alone[0], together[i, :n], rtol=1e-4, atol=1e-6)
        assert torch.equal(together, refiner.refine(mel, lengths))
    assert refiner.refine(torch.rand(1, 1500, 8), torch.tensor([1500])).shape == (1, 1500, 8)


def test_the_true_velocity_leads_from_noise_to_speech():
    refiner = Refiner(1, 8)
    predicted, recorded = torch.rand(2, 6, 8), torch.rand(2, 6, 8)
    matching = refiner.match(predicted, recorded, torch.tensor([6, 6]))
    noise = (recorded - predicted) / SCALE - matching.target
    assert 0.7 < noise.std() < 1.3 and STEPS > 1
    assert not matching.velocity.any()  # fresh


def test_d_spch_learns_nothing_from_it_and_the_post_net_hears_recordings():
    model, batch = tiny_model(refiner=1), tiny_batch(0, 3)
    decoder = model.speech_decoder
    torch.nn.init.normal_(decoder.refiner.output.weight)
    losses_of(model, batch, "flow")["flow"].backward()
    touched = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched == {"speech_decoder"}
    assert {n.split(".")[0] for n, p in decoder.named_parameters() if p.grad is not None and p.grad.any()} == {
        "refiner"
    }
    model.zero_grad()
    losses_of(model, batch, "linear")["linear"].backward()
    assert {n.split(".")[0] for n, p in decoder.named_parameters() if p.grad is not None and p.grad.any()} == {
        "postnet"
    }
    linear = model.eval()(batch, {"mel"}).spoken.linear
    torch.testing.assert_close(linear, decoder.postnet(batch.mel, batch.mel_lengths))
    assert linear.shape[2] == AUDIO.n_linear


def test_synthesis_refines():
    model = tiny_model(refiner=1).eval()
    latent = model.encode_text(torch.randint(3, 66, (1, 9)), torch.tensor([9]))
    refined, _ = model.generate_speech(latent, 60, 60)
    model.speech_decoder.refiner, refiner = None, model.speech_decoder.refiner
    plain, _ = model.generate_speech(latent, 60, 60)
    torch.testing.assert_close(refined.mel, refiner.refine(plain.mel, plain.lengths))
