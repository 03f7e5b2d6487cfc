"""E_txt: characters through a CBHG, to one vector a sentence or a token a character."""

import torch
from torch import Tensor, nn

from skipmodal.config import ModelConfig
from skipmodal.models.latent import Encoded
from skipmodal.models.layers import CBHG, MaskedBatchNorm, Prenet, length_mask
from skipmodal.text import PAD, SYMBOLS


class TextEncoder(nn.Module):
    """Look-up -> 2 x [FC -> ReLU -> dropout .5] -> CBHG -> mean over valid time -> FC -> tanh -> e."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.text_channels
        self.embed = nn.Embedding(len(SYMBOLS), width, padding_idx=PAD)
        self.prenet = Prenet(width, (2 * width, width), config.text_dropout)
        # "128-D embeddings" in section 3.1 are the CBHG's inputs; Tacotron's bidirectional GRU gives 2 x 128.
        self.cbhg = CBHG(width, config.text_banks, width, projection=width)
        self.project = nn.Linear(2 * width, config.embedding)

    def forward(self, ids: Tensor, lengths: Tensor) -> Encoded:
        """ids (B, L), lengths (B,) -> e (B, 1, embedding)."""
        e = torch.tanh(self.project(self.states(ids, lengths).sum(1) / lengths[:, None]))
        return Encoded(e[:, None], torch.ones_like(lengths))

    def states(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, L, 2 * text_channels) before the mean; zeros in the padding."""
        return self.cbhg(self.prenet(self.embed(ids)), lengths)  # type: ignore[no-any-return]


class TextTokenEncoder(TextEncoder):
    """The same without the mean over time: one token a character, normalised."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        # Not in the paper: at first all tokens of an encoder are nearly alike, and M would give one u for all.
        self.norm = MaskedBatchNorm(config.embedding)

    def forward(self, ids: Tensor, lengths: Tensor) -> Encoded:
        """ids (B, L), lengths (B,) -> e (B, L, embedding)."""
        e = torch.tanh(self.project(self.states(ids, lengths)))
        return Encoded(self.norm(e, length_mask(lengths, e.shape[1])), lengths, rate=1.0)
