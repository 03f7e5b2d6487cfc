"""D_txt as the paper has it: an LSTM from one vector."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.config import VectorModel
from skipmodal.models.decoders.spelling import Spelling
from skipmodal.models.decoders.written import Choices, Written
from skipmodal.models.latent import Latent
from skipmodal.models.layers import Packing
from skipmodal.models.search import Sentences, State, Step, beam_search, sample
from skipmodal.text import BOS, PAD
from skipmodal.tokenizer import Tokenizer


class TextDecoder(nn.Module):
    """2-layer LSTM whose state comes from u, characters until end-of-sentence, 66-way softmax.

    Not in the paper: with `text_context` u is also an input at every character, as the speech decoder has it; with
    `history_dropout` random characters of its past are hidden in training, so that it has to read u.
    """

    def __init__(self, config: VectorModel, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.width, self.context, self.history_dropout = (
            config.text_decoder,
            config.text_context,
            config.history_dropout,
        )
        self.spelling = Spelling(tokenizer)
        self.embed = nn.Embedding(len(tokenizer), self.width, padding_idx=PAD)
        self.state = nn.Linear(config.d_k, 4 * self.width)  # h and c of both layers
        width_in = self.width + (config.d_k if self.context else 0)
        self.lstm = nn.LSTM(width_in, self.width, 2, batch_first=True, dropout=config.dropout)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(self.width, len(tokenizer))

    def initial_state(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """u (B, d_k) -> (h, c), each (2, B, width)."""
        h, c = torch.tanh(self.state(u)).view(len(u), 2, 2, self.width).permute(1, 2, 0, 3).contiguous()
        return h, c

    def forward(self, latent: Latent, target: Tensor, owners: Tensor | None = None) -> Written:
        """Teacher forcing on target (B, S), of the item with the same number, or of item `owners` (B,)."""
        u = latent.mean if owners is None else latent.mean[owners]
        history = F.pad(target[:, :-1], (1, 0), value=BOS)
        if self.training and self.history_dropout:
            history = history.masked_fill(torch.rand(history.shape, device=u.device) < self.history_dropout, BOS)
        states, _ = self.lstm(self._inputs(u, history), self.initial_state(u))
        packing = Packing(target != PAD)
        choices = Choices(packing, self.output(packing.pack(self.dropout(states))))
        return Written(target, self.spelling.lengths[target], choices)

    def _inputs(self, u: Tensor, ids: Tensor) -> Tensor:
        embedded = self.embed(ids)
        return torch.cat([embedded, u[:, None].expand(-1, ids.shape[1], -1)], 2) if self.context else embedded

    @torch.no_grad()
    def generate(self, latent: Latent, max_length: int, beam: int = 1, every: bool = False) -> Sentences:
        """Free-running, in characters; see `beam_search`."""
        step = self._stepper(latent.mean.repeat_interleave(beam, 0))
        found = beam_search(step, self.initial_state(latent.mean), max_length, beam, self.spelling.begins, every)
        return self.spelling.spelled(found, max_length)

    @torch.no_grad()
    def sample(self, latent: Latent, max_length: int) -> Tensor:
        """One sentence an item, drawn token by token: (B, S), padding after the end."""
        return sample(self._stepper(latent.mean), self.initial_state(latent.mean), max_length)

    def _stepper(self, u: Tensor) -> Step:
        def step(ids: Tensor, state: State) -> tuple[Tensor, State]:
            hidden, state = self.lstm(self._inputs(u, ids), state)
            return self.output(hidden[:, 0]).masked_fill(self.spelling.lengths == 0, -torch.inf), state

        return step
