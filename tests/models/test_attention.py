"""Attention against a direct evaluation, its positions, and the guide."""

import math

import torch

from skipmodal.models.attention import Attention, guided_attention, sinusoids


def test_attention_is_softmax_of_scaled_products_over_valid_tokens():
    torch.manual_seed(0)
    attention = Attention(query=6, memory=5, width=8, heads=2)
    x, memory, mask = torch.randn(1, 3, 6), torch.randn(1, 4, 5), torch.tensor([[True, True, True, False]])
    where_x, where_memory = torch.rand(1, 3), torch.rand(1, 4)
    context, weights = attention(x, where_x, attention.remember(memory, where_memory, mask))
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        q = attention.query(x)[0, :, part] + 4 * sinusoids(where_x[0] + head, 4)
        k = attention.key(memory)[0, :3, part] + 4 * sinusoids(where_memory[0, :3], 4)
        expected = torch.stack([torch.softmax(k @ row / math.sqrt(4), 0) for row in q])
        torch.testing.assert_close(weights[0, head, :, :3], expected)
        torch.testing.assert_close(context[0, :, part], expected @ attention.value(memory)[0, :3, part])
    assert (weights[..., 3] == 0).all()


def test_each_head_looks_a_character_further_and_tokens_without_order_are_equal():
    attention = Attention(4, 4, 192, 3)
    for layer in (attention.query, attention.key):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    memory, mask = torch.randn(1, 30, 4), torch.ones(1, 30, dtype=torch.bool)
    steps = torch.arange(0, 30, 3.0)[None]
    _, weights = attention(torch.randn(1, 10, 4), steps, attention.remember(memory, torch.arange(30.0)[None], mask))
    for head in range(3):
        assert weights[0, head].argmax(1).tolist() == list(range(head, 30, 3))
    _, weights = attention(torch.randn(1, 10, 4), steps, attention.remember(memory, torch.zeros(1, 30), mask))
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 30))


def test_the_guide_is_small_on_the_diagonal_and_ignores_padding():
    steps, tokens = torch.tensor([8, 4]), torch.tensor([4, 4])
    along = torch.arange(8) / steps[:, None]
    diagonal = torch.zeros(2, 8, 4)
    diagonal[0, range(8), [s // 2 for s in range(8)]] = 1
    diagonal[1, range(4), range(4)] = 1
    small = guided_attention(diagonal, along, steps, tokens)
    assert small < 0.1
    assert guided_attention(diagonal.flip(2), along, steps, tokens) > 5 * small
    wasted = diagonal.clone()
    wasted[1, 4:, 0] = 1  # steps that do not exist
    torch.testing.assert_close(guided_attention(wasted, along, steps, tokens), small)


def test_the_guide_follows_steps_of_unequal_length():
    weights = torch.eye(4)[[0, 3]][None]  # a word of three tokens, then one of one token
    steps, tokens = torch.tensor([2]), torch.tensor([4])
    even, uneven = torch.tensor([[0, 0.5]]), torch.tensor([[0, 0.75]])
    assert guided_attention(weights, uneven, steps, tokens) == 0
    assert guided_attention(weights, even, steps, tokens) > 0.1
