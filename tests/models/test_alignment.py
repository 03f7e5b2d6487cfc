"""Alignment, durations and the guide: against every way through a short sentence, and by what they add up to."""

from itertools import combinations, pairwise

import pytest
import torch

from skipmodal.models.alignment import BLANK, Aligner, align, forward_sum, guided_attention, spread


def ways(frames, characters):
    """All durations of at least one frame each."""
    for cuts in combinations(range(1, frames), characters - 1):
        edges = (0, *cuts, frames)
        yield [b - a for a, b in pairwise(edges)]


def test_the_alignment_is_the_likeliest_of_all_ways():
    torch.manual_seed(0)
    scores = 3 * torch.randn(20, 8, 5)
    lengths, mel_lengths = torch.randint(1, 6, (20,)), torch.randint(5, 9, (20,))
    scores = scores.masked_fill(torch.arange(5) >= lengths[:, None, None], -1e4)
    found = align(scores, lengths, mel_lengths)
    for i, (frames, n) in enumerate(zip(mel_lengths.tolist(), lengths.tolist(), strict=True)):
        log_p = scores[i].log_softmax(1)
        best = max(
            ways(frames, n),
            key=lambda way: sum(
                log_p[t, j] for t, j in enumerate(torch.arange(n).repeat_interleave(torch.tensor(way)))
            ),
        )
        assert found[i].tolist() == best + [0] * (5 - n)


def test_more_characters_than_frames_leave_the_last_without():
    assert align(torch.zeros(1, 3, 5), torch.tensor([5]), torch.tensor([3])).tolist() == [[1, 1, 1, 0, 0]]


def test_recordings_with_fewer_frames_than_characters_teach_nothing():
    scores = torch.randn(2, 4, 3, requires_grad=True)
    loss = forward_sum(scores, torch.tensor([3, 3]), torch.tensor([4, 2]))
    loss.backward()
    assert torch.isfinite(loss) and scores.grad[0].any() and not scores.grad[1].any()


def test_the_forward_sum_is_that_of_all_ways():
    torch.manual_seed(0)
    scores, lengths, mel_lengths = torch.randn(2, 4, 3), torch.tensor([3, 2]), torch.tensor([4, 3])
    scores[1, :, 2] = -1e4
    total = 0.0
    for i, (frames, n) in enumerate(zip(mel_lengths.tolist(), lengths.tolist(), strict=True)):
        log_p = torch.cat([torch.full((4, 1), BLANK), scores[i].log_softmax(1)], 1).log_softmax(1)
        sums = []
        for path in torch.cartesian_prod(*[torch.arange(n + 1)] * frames).tolist():  # with blanks anywhere
            said = [c for t, c in enumerate(path) if c and (t == 0 or path[t - 1] != c)]
            if said == list(range(1, n + 1)):
                sums.append(sum(log_p[t, c] for t, c in enumerate(path)))
        total -= torch.logsumexp(torch.stack(sums), 0)
    scores.requires_grad_()
    loss = forward_sum(scores, lengths, mel_lengths)
    torch.testing.assert_close(loss, total)
    loss.backward()
    assert torch.isfinite(scores.grad).all() and scores.grad[0].any()


def test_an_aligner_learns_where_sounds_lie():
    torch.manual_seed(0)
    aligner = Aligner(8, 16)
    sounds = torch.rand(66, 8)
    optimizer = torch.optim.Adam(aligner.parameters(), 0.01)

    def draw(items):
        ids = 3 + torch.rand(items, 12).argsort(1)[:, :7]  # no two alike beside each other
        durations = torch.randint(1, 8, (items, 7))
        lengths = durations.sum(1)
        mel = torch.zeros(items, int(lengths.max()), 8)
        for i in range(items):
            mel[i, : lengths[i]] = sounds[ids[i]].repeat_interleave(durations[i], 0)
        return ids, torch.full((items,), 7), mel, lengths, durations

    for _ in range(300):
        ids, lengths, mel, mel_lengths, _ = draw(16)
        (forward_sum(aligner(ids, lengths, mel, mel_lengths), lengths, mel_lengths) / mel_lengths.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    ids, lengths, mel, mel_lengths, durations = draw(50)
    off = (align(aligner(ids, lengths, mel, mel_lengths), lengths, mel_lengths) - durations).abs().float().mean()
    even = (mel_lengths[:, None] / 7 - durations).abs().mean()
    assert off < 0.5 * even


@pytest.mark.parametrize("r", [1, 3])
def test_each_step_has_its_characters_and_where_in_them_it_lies(r):
    durations = torch.tensor([[2, 4, 0, 3], [1, 1, 1, 0]])
    weights, place = spread(durations, r, -(-9 // r))
    frames = [0, 0, 1, 1, 1, 1, 3, 3, 3]
    every = torch.nn.functional.one_hot(torch.tensor(frames), 4).float()
    torch.testing.assert_close(weights[0], every.unflatten(0, (-1, r)).mean(1))
    assert weights[1].sum() * r == 3  # nothing after its end
    if r == 3:  # the middle of each three frames, in its characters: 0 and 1, 1, 3
        assert place[0, :, 0].tolist() == pytest.approx([2 / 3 * 0.75 + 0, 2.5 / 4, 1.5 / 3])
    else:
        assert place[0, :, 0].tolist() == pytest.approx([1 / 4, 3 / 4, 1 / 8, 3 / 8, 5 / 8, 7 / 8, 1 / 6, 3 / 6, 5 / 6])
        torch.testing.assert_close(place[0, :, 1].exp(), torch.tensor([2.0, 2, 4, 4, 4, 4, 3, 3, 3]))


def test_durations_need_not_be_whole():
    weights, _ = spread(torch.tensor([[1.25, 0.5, 2.25]]), 2, 2)
    torch.testing.assert_close(weights[0], torch.tensor([[0.625, 0.25, 0.125], [0.0, 0.0, 1.0]]))


def test_the_guide_is_small_on_the_diagonal_and_ignores_padding():
    steps, tokens = torch.tensor([8, 4]), torch.tensor([4, 4])
    along = torch.arange(8) / steps[:, None]
    diagonal = torch.zeros(2, 8, 4)
    diagonal[0, range(8), [s // 2 for s in range(8)]] = 1
    diagonal[1, range(4), range(4)] = 1
    small = guided_attention(diagonal, along, steps, tokens)
    assert small / steps.sum() < 0.1
    assert guided_attention(diagonal.flip(2), along, steps, tokens) > 5 * small
    wasted = diagonal.clone()
    wasted[1, 4:, 0] = 1  # steps that do not exist
    torch.testing.assert_close(guided_attention(wasted, along, steps, tokens), small)


def test_the_guide_follows_steps_of_unequal_length():
    weights = torch.eye(4)[[0, 3]][None]  # a word of three tokens, then one of one token
    steps, tokens = torch.tensor([2]), torch.tensor([4])
    even, uneven = torch.tensor([[0, 0.5]]), torch.tensor([[0, 0.75]])
    assert guided_attention(weights, uneven, steps, tokens) == 0
    assert guided_attention(weights, even, steps, tokens) / 2 > 0.1
