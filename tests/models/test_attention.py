"""Attention against a direct evaluation, and its positions."""

import math

import torch

from skipmodal.models.attention import Attention, sinusoids


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
