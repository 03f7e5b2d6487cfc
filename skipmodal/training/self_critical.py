"""Self-critical training: captions that the model draws itself, rewarded by CIDEr-D instead of by the next character.

Rennie et al., CVPR 2017, with the other draws of the same picture as the baseline (Luo, arXiv 2003.09971).
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from skipmodal import text
from skipmodal.metrics.captions import CiderD, tokenise
from skipmodal.models.decoders.attending import AttendingDecoder
from skipmodal.models.decoders.text import TextDecoder
from skipmodal.models.latent import Latent
from skipmodal.models.layers import ratio
from skipmodal.tokenizer import Tokenizer

DRAWS = 4  # captions a picture
MARGIN = 20  # tokens by which a draw may outgrow the longest reference of the batch


class SelfCritical:
    """The loss whose gradient raises the expected CIDEr-D; n-gram frequencies are those of the training captions."""

    def __init__(self, captions: Iterable[Sequence[str]], tokenizer: Tokenizer, max_length: int) -> None:
        """`captions` of each training picture; `max_length` tokens are drawn at most."""
        self.tokenizer, self.max_length = tokenizer, max_length
        self._cider = CiderD([_words(caption) for caption in each] for each in captions)

    def __call__(
        self, decoder: TextDecoder | AttendingDecoder, image: Latent, references: Sequence[Sequence[str]]
    ) -> tuple[Tensor, Tensor]:
        """image of B pictures, references of each -> loss and mean reward (CIDEr-D in [0, 10]), scalars."""
        latent = image.rows(torch.arange(len(image.u), device=image.u.device).repeat_interleave(DRAWS))
        # What is drawn and what is learned from it are of one policy, without dropout; but what a draw has copied it
        # can't copy again, which isn't learned. The LSTMs stay as they are:
        # cuDNN's can't go back in evaluation mode.
        dropouts = [module for module in decoder.modules() if isinstance(module, nn.Dropout) and module.training]
        for module in dropouts:
            module.eval()
        longest = MARGIN + max(len(self.tokenizer.encode(reference)) - 1 for each in references for reference in each)
        tokens = decoder.sample(latent, min(longest, self.max_length))
        rewards = self._rewards(decoder.spelling.characters(tokens), references).to(tokens.device)
        others = (rewards.sum(1, keepdim=True) - rewards) / (DRAWS - 1)
        advantage = (rewards - others).flatten()[:, None]
        written = decoder(latent, tokens)
        for module in dropouts:
            module.train()
        logits = written.logits.float().masked_fill(decoder.spelling.lengths == 0, -torch.inf)
        valid = tokens != text.PAD
        drawn = logits.log_softmax(-1).gather(2, tokens.masked_fill(~valid, text.EOS)[:, :, None])[:, :, 0]
        return ratio(-(advantage * drawn)[valid].sum(), written.spans.sum()), rewards.mean()

    def _rewards(self, ids: Tensor, references: Sequence[Sequence[str]]) -> Tensor:
        """(B * DRAWS, L) -> (B, DRAWS)."""
        drawn = [_words(text.decode(row), ended=text.EOS in row) for row in ids.tolist()]
        return torch.tensor([
            self._cider(drawn[i * DRAWS : (i + 1) * DRAWS], [_words(reference) for reference in each])
            for i, each in enumerate(references)
        ])  # fmt: skip


def _words(caption: str, ended: bool = True) -> list[str]:
    """With the end as a word, or captions that break off would be worth as much."""
    return [*tokenise(caption), *(["</s>"] if ended else [])]
