"""Building blocks: padding never reaches a convolution, a statistic or a state."""

import copy

import pytest
import torch
from torch import nn

from skipmodal.models.layers import CBHG, BiGRU, MaskedBatchNorm, RunningNorm, length_mask, lstm_step, mean, ratio

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


def test_a_masked_norm_of_maps_has_one_statistic_a_channel():
    torch.manual_seed(0)
    x, mask = torch.randn(3, 9, 5, 4), length_mask(LENGTHS, 9)
    masked, plain = MaskedBatchNorm(5), nn.BatchNorm2d(5)
    y = masked(x, mask)
    expected = plain(x[mask][:, :, :, None])[..., 0]
    torch.testing.assert_close(y[mask], expected)
    torch.testing.assert_close(masked.running_var, plain.running_var)
    assert not y[~mask].any()


def test_a_step_of_an_lstm_is_that_of_the_module():
    torch.manual_seed(0)
    lstm, x = nn.LSTM(3, 4, batch_first=True), torch.randn(2, 5, 3)
    expected, (h, c) = lstm(x)
    state = (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))
    for t in range(5):
        out, state = lstm_step(lstm, x[:, t : t + 1], state)
        torch.testing.assert_close(out[:, 0], expected[:, t])
    torch.testing.assert_close(state, (h, c))


def test_means_of_one_process_are_plain_ones():
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert mean(x) == 3 and ratio(x.sum(), torch.tensor(4)) == 3
    assert ratio(torch.tensor(0.0), torch.tensor(0)) == 0  # of nothing
