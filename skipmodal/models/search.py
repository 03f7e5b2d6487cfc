"""From scores of the next unit (a character or a word) to a sentence: beam search; a beam of one is greedy decoding."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from skipmodal.text import BOS, EOS, PAD

LENGTH_POWER = 1.0  # hypotheses are compared by log-probability / length ** this
State = tuple[Tensor, ...]  # each (layers, rows, width)
# From units (rows, 1) and the state to logits (rows, units) and the next state.
Step = Callable[[Tensor, State], tuple[Tensor, State]]


class Sentences(NamedTuple):
    """What a search found: B items, or all hypotheses of each."""

    ids: Tensor  # (B, L) units, or characters, end-of-sentence included, then padding
    capped: Tensor  # (B,) bool: without an end
    log_probability: Tensor  # (B,) of the whole sentence, as these units
    lengths: Tensor  # (B,) what the search divided it by: characters, or words and signs
    named: Tensor | None = None  # (B,) bool: names an unfamiliar picture's thing, with that word's log-probability


def sample(step: Step, state: State, max_length: int) -> Tensor:
    """Sentences drawn unit by unit: (rows, S), the end included where there is one, then padding."""
    rows, device = state[0].shape[1], state[0].device
    last = torch.full((rows, 1), BOS, device=device)
    done = torch.zeros(rows, 1, dtype=torch.bool, device=device)
    drawn = []
    for _ in range(max_length):
        logits, state = step(last, state)
        logits[:, (PAD, BOS)] = -torch.inf
        p = logits.float().softmax(-1)
        p = p.masked_fill(~p.isfinite().all(1, keepdim=True), 1.0)  # a bad step is for the caller's loss to show
        last = torch.multinomial(p, 1).masked_fill(done, PAD)
        drawn.append(last)
        done |= last == EOS
        if done.all():
            break
    return torch.cat(drawn, 1)


def beam_search(step: Step, state: State, max_length: int, beam: int, sizes: Tensor, every: bool = False) -> Sentences:
    """The best of `beam` hypotheses an item, of which each has been given as many units.

    With `every`, all of them: row b * beam + k is the k-th best of item b. After its best has ended the others of an
    item may go on for as many units again; where one alone is wanted they stop with it.

    `sizes` (units,) is the length of each: characters, or words, of which a spelled one is as long as the same word
    whole, or its many sure letters would be worth more than the one choice of a word.

    `step(ids (rows, 1), state)` gives logits (rows, units) and the next state; `state` comes with one row an
    item and is repeated: row b * beam + k is hypothesis k of item b.
    """
    batch, device = state[0].shape[1], state[0].device
    state = tuple(tensor.repeat_interleave(beam, 1) for tensor in state)
    scores = torch.full((batch, beam), -torch.inf, device=device)
    scores[:, 0] = 0  # all hypotheses start equal: only one may branch
    lengths = torch.zeros(batch, beam, dtype=torch.long, device=device)
    done = torch.zeros(batch, beam, dtype=torch.bool, device=device)
    still = done  # goes on as it is: it has ended, or the search for its item has
    ids = torch.full((batch, beam, 1), BOS, device=device)
    first_rows = torch.arange(batch, device=device)[:, None] * beam
    last = torch.full((batch, 1), max_length + 1, device=device)  # steps of an item; or loops push out what has ended
    for i in range(1, max_length + 1):
        logits, state = step(ids[:, :, -1].reshape(-1, 1), state)
        logits[:, (PAD, BOS)] = -torch.inf  # never targets; an untrained model may emit them
        log_p = logits.float().log_softmax(-1).view(batch, beam, -1)
        log_p = log_p.masked_fill(still[:, :, None], -torch.inf)
        log_p[:, :, PAD] = log_p[:, :, PAD].masked_fill(still, 0)
        candidates = scores[:, :, None] + log_p
        longer = (lengths + ~still)[:, :, None].clamp(min=1)  # one for all that go on from a hypothesis
        best = (candidates / longer**LENGTH_POWER).flatten(1).topk(beam).indices
        parent, symbol = best // log_p.shape[2], best % log_p.shape[2]
        scores = candidates.flatten(1).gather(1, best)
        lengths = lengths.gather(1, parent) + sizes[symbol]
        ids = torch.cat([ids.gather(1, parent[:, :, None].expand(-1, -1, ids.shape[2])), symbol[:, :, None]], 2)
        done = done.gather(1, parent) | (symbol == EOS)
        last = torch.where(done[:, :1], last.clamp(max=2 * i if every else i), last)
        closed = last <= i
        # Where loops have pushed out all that had ended, the best of them stays.
        scores = scores.masked_fill(~done & closed & done.any(1, keepdim=True), -torch.inf)
        still = done | closed
        state = tuple(tensor.index_select(1, (first_rows + parent).flatten()) for tensor in state)
        if still.all():
            break
    if every:
        capped = ~done | scores.isinf()  # where there are fewer than `beam`, the rest is nothing
        return Sentences(ids[:, :, 1:].flatten(0, 1), capped.flatten(), scores.flatten(), lengths.flatten())
    best = done.int().argmax(1)  # the best that has ended, else the best
    items = torch.arange(batch, device=device)
    return Sentences(ids[items, best, 1:], ~done[items, best], scores[items, best], lengths[items, best])
