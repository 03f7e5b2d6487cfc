"""Reranking: of several likely sentences for a picture or a recording the one that fits it best."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from skipmodal.models.latent import Latent
from skipmodal.models.layers import trim
from skipmodal.models.search import Sentences
from skipmodal.text import PAD

LIKENESS = 1.0  # nats a word for the cosine of a picture's and its sentence's u; 0.7 to 3 do about the same
LETTERS = 1.0  # weight of the log-probability of a recording's sentence by CTC, beside D_txt's
CELLS = 2_000_000  # tokens of latents times characters of all hypotheses that are scored at once: bounds the memory
TOKENS = 256  # of a latent at least: scoring a sentence takes memory by itself
# How well sentences (N, L) fit the items (N,) of a latent, in nats (N,).
Fit = Callable[[Latent, Tensor, Tensor], Tensor]


def hypotheses(beam: int) -> int:
    """How many sentences an item D_txt writes to compare, and of a recording CTC as many."""
    return 2 * beam


def beside(one: Sentences, other: Sentences, items: int) -> Sentences:
    """The hypotheses of both for each item, those of an item in rows one after the other."""
    longest = max(one.ids.shape[1], other.ids.shape[1])
    parts = [part._replace(ids=F.pad(part.ids, (0, longest - part.ids.shape[1]), value=PAD)) for part in (one, other)]
    values = ([getattr(part, name).unflatten(0, (items, -1)) for part in parts] for name in Sentences._fields[:4])
    return Sentences(*(torch.cat(both, 1).flatten(0, 1) for both in values))


@torch.no_grad()
def choose(latent: Latent, found: Sentences, fit: Fit) -> Sentences:
    """The best of as many hypotheses of each item, in rows one after the other.

    A recording's are chosen by their fit alone. To a picture's, which may be of any length, their log-probability a
    word is added.
    """
    score = torch.full_like(found.log_probability, -torch.inf)
    rows = (~found.capped).nonzero()[:, 0]
    each, device = len(found.ids) // len(latent.u), rows.device
    if len(rows):
        # The same sentence in other tokens is the same. On the CPU: MPS had no unique of rows before torch 2.10.
        numbered = torch.cat([rows[:, None] // each, found.ids[rows]], 1).cpu()
        sentences, which = torch.unique(numbered, dim=0, return_inverse=True)
        parts = sentences.to(device).split(max(1, CELLS // (max(latent.u.shape[1], TOKENS) * found.ids.shape[1])))
        fits = torch.cat([fit(latent, part[:, 0], part[:, 1:]) for part in parts])
        score[rows] = fits[which.to(device)]
        if not latent.heard:
            score[rows] += found.log_probability[rows] / found.lengths[rows]
    best = score.view(-1, each).argmax(1) + each * torch.arange(len(latent.u), device=device)
    return Sentences(trim(found.ids[best]), found.capped[best], found.log_probability[best], found.lengths[best])
