"""A D_txt that is a transformer: causal self-attention, attention over the tokens of a latent, FC layers."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.config import TokensModel
from skipmodal.models.attention import Attention, AttentionMemory, sinusoids
from skipmodal.models.decoders.attending import AttendingDecoder, remember
from skipmodal.models.latent import Latent
from skipmodal.models.layers import Packing
from skipmodal.models.search import State
from skipmodal.text import PAD
from skipmodal.tokenizer import Tokenizer


class Past(NamedTuple):
    """Keys and values (B, S, width) of the tokens before."""

    keys: Tensor
    values: Tensor


class Block(nn.Module):
    """One layer, normalised before each part (Xiong et al., On Layer Normalization, ICML 2020)."""

    def __init__(self, config: TokensModel) -> None:
        super().__init__()
        width, self.heads = config.text_decoder, config.text_heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.own = nn.Linear(width, 3 * width)  # query, key and value
        self.own_out, self.cross_out = nn.Linear(width, width), nn.Linear(width, width)
        self.cross = Attention(width, config.d_k, width, config.text_heads)
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, packing: Packing, starts: Tensor, memory: AttentionMemory, past: Past | None = None
    ) -> tuple[Tensor, Tensor, Past]:
        """x (N, width) at the valid places of sentences (B, S), starts (B, S) in characters -> the same, attention
        (B, heads, S, places), keys and values.

        With the keys and values of the tokens before x, if x is one token a sentence, and otherwise without any.
        """
        query, key, value = packing.pad(self.own(self.norms[0](x))).chunk(3, 2)
        if past is not None:
            key, value = torch.cat([past.keys, key], 1), torch.cat([past.values, value], 1)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        drop = self.dropout.p if self.dropout.training else 0.0
        seen = F.scaled_dot_product_attention(q, k, v, dropout_p=drop, is_causal=past is None)
        x = x + self.dropout(self.own_out(packing.pack(seen.transpose(1, 2).flatten(2))))
        context, weights = self.cross(packing.pad(self.norms[1](x)), starts, memory)
        x = x + self.dropout(self.cross_out(packing.pack(context)))
        return x + self.dropout(self.layers(self.norms[2](x))), weights, Past(key, value)


class TransformerTextDecoder(AttendingDecoder):
    """Tokens and their places -> `text_layers` blocks -> softmax over the tokens (Vaswani et al., NeurIPS 2017)."""

    def __init__(self, config: TokensModel, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer, config.text_decoder, config.dropout, config.d_k if config.kinds else None)
        nn.init.normal_(self.embed.weight, std=self.width**-0.5)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.text_layers))
        self.norm = nn.LayerNorm(self.width)

    def states(self, latent: Latent, history: Tensor, starts: Tensor, owners: Tensor | None) -> tuple[Tensor, Tensor]:
        packing = Packing(history != PAD)
        x, weights = packing.pack(self._embedded(history, 0)), torch.empty(0)
        for block in self.blocks:
            assert isinstance(block, Block)
            memory = remember(block.cross, latent)
            x, weights, _ = block(x, packing, starts, memory if owners is None else memory.rows(owners))
        return packing.pad(self.norm(x)), weights  # of the last block

    def begin(self, latent: Latent, beam: int = 1) -> tuple[Callable[..., tuple[Tensor, State]], State]:
        blocks = [block for block in self.blocks if isinstance(block, Block)]
        memories = [remember(block.cross, latent).repeat(beam) for block in blocks]

        def advance(tokens: Tensor, start: Tensor, state: State) -> tuple[Tensor, State]:
            packing, after = Packing(torch.ones_like(tokens).bool()), []
            x = packing.pack(self._embedded(tokens, state[0].shape[2]))
            for block, memory, keys, values in zip(blocks, memories, state[::2], state[1::2], strict=True):
                x, _, present = block(x, packing, start, memory, Past(keys[0], values[0]))
                after += [part[None] for part in present]
            return packing.pad(self.norm(x)), tuple(after)

        nothing = latent.u.new_zeros(1, len(latent.u), 0, self.width)
        return advance, (nothing,) * (2 * len(self.blocks))

    def _embedded(self, tokens: Tensor, first: int) -> Tensor:
        """tokens (B, S), of which the first is number `first` of its sentence."""
        places = torch.arange(first, first + tokens.shape[1], device=tokens.device)
        scale = self.width**0.5
        return self.dropout(scale * self.embedded(tokens) + sinusoids(places, self.width))  # type: ignore[no-any-return]
