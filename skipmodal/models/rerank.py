"""Reranking: of several likely sentences for a picture or a recording the one that, encoded, spelled or spoken, fits it
best.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from skipmodal.models.latent import Latent
from skipmodal.models.search import Sentences
from skipmodal.text import PAD

LIKENESS = 1.0  # nats a word for the cosine of a picture's and its sentence's u; 0.7 to 3 do about the same
DISTANCE = 3.0  # nats for a frame that is off by one in every band; 2 to 10 do about the same
LETTERS = 0.5  # weight of the log-probability of a sentence by CTC; 0.3 to 1 do about the same
CELLS = 2_000_000  # frames times characters of all hypotheses that are scored at once: bounds the memory
FRAMES = 256  # of a recording that takes as much memory to be spoken as a picture's sentence to be encoded
# How well sentences (N, L) fit the items (N,) of a latent, in nats (N,).
Fit = Callable[[Latent, Tensor, Tensor], Tensor]


def hypotheses(latent: Latent, beam: int) -> int:
    """How many sentences an item are compared."""
    return beam * (4 if latent.recording else 2)


@torch.no_grad()
def choose(latent: Latent, found: Sentences, fit: Fit) -> Sentences:
    """The best of as many hypotheses of each item, in rows one after the other, by likelihood and fit.

    A recording's hypotheses last as long as it does, so their log-probabilities are compared as they are: D_txt's, that
    of CTC (Watanabe et al., 2017), and analysis by synthesis, p(text | speech) p(speech | text). A picture's may be of
    any length, and are compared a word.
    """
    likely = found.log_probability if latent.recording else found.log_probability / found.lengths
    score = torch.full_like(likely, -torch.inf)
    rows = (~found.capped).nonzero()[:, 0]
    each, device = len(found.ids) // len(latent.u), rows.device
    if len(rows):
        # The same sentence in other tokens is the same. On the CPU: MPS had no unique of rows before torch 2.10.
        numbered = torch.cat([rows[:, None] // each, found.ids[rows]], 1).cpu()
        sentences, which = torch.unique(numbered, dim=0, return_inverse=True)
        frames = latent.recording[0].shape[1] if latent.recording else FRAMES
        parts = sentences.to(device).split(max(1, CELLS // (frames * found.ids.shape[1])))
        fits = torch.cat([fit(latent, part[:, 0], part[:, 1:]) for part in parts])
        score[rows] = likely[rows] + fits[which.to(device)]
    best = score.view(-1, each).argmax(1) + each * torch.arange(len(latent.u), device=device)
    longest = int((found.ids[best] != PAD).sum(1).max())
    return Sentences(found.ids[best, :longest], found.capped[best], found.log_probability[best], found.lengths[best])
