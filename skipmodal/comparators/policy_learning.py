"""Policy learning: Deep Speech 2 trained by the errors of what it samples (Zhou, Xiong and Socher, 2018; table 3).

"Improving end-to-end speech recognition with policy learning", ICASSP 2018. As there, beside CTC the expected error
rate of transcripts that are sampled from the network goes down: its gradient is that of a sample's log-probability
times how many more errors it has than the likeliest transcript (self-critical, Rennie et al., CVPR 2017). Left out,
beside what Deep Speech 2 here leaves out: the deeper network of that paper.
"""

from collections.abc import Collection, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from skipmodal import text
from skipmodal.audio import AudioConfig
from skipmodal.comparators.deepspeech2 import DeepSpeech2, DeepSpeech2Loss, DeepSpeech2Model
from skipmodal.config import Positive, Recipe, loss_term
from skipmodal.data.batches import Batch
from skipmodal.image import ImageConfig
from skipmodal.models.base import Outputs
from skipmodal.models.ctc import collapse, ctc_loss, spent
from skipmodal.models.layers import length_mask, ratio
from skipmodal.text import BOS, EOS
from skipmodal.tokenizer import Tokenizer


class PolicyLearningModel(DeepSpeech2Model):
    """Its sizes, which are those of Deep Speech 2, and what is sampled."""

    in_training: ClassVar[tuple[str, ...]] = (*DeepSpeech2Model.in_training, "samples", "errors")

    kind: Literal["policy_learning"] = "policy_learning"  # type: ignore[assignment]
    samples: Positive = Field(default=4, description="transcripts a recording that are sampled; the paper: 1")
    errors: Literal["words", "characters"] = Field(default="words", description="what is counted")


class PolicyLearningLoss(DeepSpeech2Loss):
    """Its losses."""

    policy: float = loss_term(0.05, "expected error rate of sampled transcripts", "text-speech", False)


class PolicyLearningRecipe(Recipe):
    """A training of it."""

    model: PolicyLearningModel = PolicyLearningModel()
    loss: PolicyLearningLoss = PolicyLearningLoss()


class PolicyLearning(DeepSpeech2):
    """Deep Speech 2 with a second loss."""

    def __init__(
        self, config: PolicyLearningModel, audio: AudioConfig, image: ImageConfig, tokenizer: Tokenizer
    ) -> None:
        super().__init__(config, audio, image, tokenizer)
        self.samples, self.of_words = config.samples, config.errors == "words"

    def forward(self, batch: Batch, wanted: Collection[str]) -> Outputs:
        outputs = Outputs()
        if len(batch.mel) and {"ctc", "policy"} & set(wanted):
            latent = self.encode_speech(batch.mel, batch.mel_lengths)
            logits, frames = self._logits(latent), latent.lengths
            ids, lengths = batch.spoken
            if "ctc" in wanted:
                outputs.own["ctc"] = ctc_loss(logits, frames, ids, lengths)
            if "policy" in wanted:
                outputs.own["policy"] = policy_loss(logits, frames, ids, self.samples, self.of_words)
        return outputs


def policy_loss(logits: Tensor, frames: Tensor, ids: Tensor, samples: int, words: bool) -> Tensor:
    """The mean error rate of sampled transcripts, whose gradient is that of its expectation.

    Logits (B, T, 66) with frames (B,), texts ids (B, L); `samples` transcripts of each item, errors of words or of
    characters. Of all paths that give a transcript: its probability is what CTC says it is.
    """
    mask = length_mask(frames, logits.shape[1])
    p = logits.detach().float().index_fill(2, torch.tensor([BOS, EOS], device=logits.device), -torch.inf).softmax(2)
    p = p.masked_fill(~p.isfinite().all(2, keepdim=True), 1.0)  # a bad step is for the loss to show
    paths = torch.multinomial(p.flatten(0, 1), samples, replacement=True).T.reshape(samples, *mask.shape)
    references = [_units(row, words) for row in ids.tolist()]
    baseline = _rates(collapse(p.argmax(2), mask), references, words).to(logits.device)
    total = logits.new_zeros((), dtype=torch.float32)
    for path in paths:
        drawn = collapse(path, mask)
        rates = _rates(drawn, references, words).to(logits.device)
        letters = torch.tensor([len(row) for row in drawn], device=logits.device)
        log_p = -spent(logits, frames, pad_sequence(drawn, batch_first=True, padding_value=BOS), letters)
        score = ((rates - baseline) * log_p).sum()
        total = total + rates.sum() + score - score.detach()
    return ratio(total, torch.tensor(float(samples * len(ids))))


def edits(a: Sequence[object], b: Sequence[object]) -> int:
    """How many must be replaced, left out or added to make a of b (Levenshtein's distance)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def _units(ids: list[int], words: bool) -> list[str]:
    """Characters ids -> the words, or the characters, of a text."""
    sentence = text.decode(ids)
    return sentence.split() if words else list(sentence)


def _rates(drawn: list[Tensor], references: list[list[str]], words: bool) -> Tensor:
    """Errors of each transcript by the units of its reference: (B,)."""
    pairs = zip(drawn, references, strict=True)
    return torch.tensor([edits(_units(row.tolist(), words), each) / max(len(each), 1) for row, each in pairs])


RECIPE, SYSTEM = PolicyLearningRecipe, PolicyLearning
