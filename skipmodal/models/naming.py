"""What is said of a picture unlike those of the training: the thing that its network sees, if it is sure of one.

Not in the paper. D_txt would put what its training's pictures show around the thing: a man sits on the macaw.
"""

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from skipmodal import text
from skipmodal.features import kinds
from skipmodal.models.latent import Latent
from skipmodal.models.search import Sentences
from skipmodal.text import PAD
from skipmodal.tokenizer import Tokenizer

SURE = 0.25  # the probability from which on a word is said
NARROW = 0.5  # of words from this probability on the least likely is said: it stands for the fewest kinds of things
ALIKE = 1e-4  # words of the same kinds differ by rounding alone: the first in the list of kinds is the narrower one


def name_unfamiliar(latent: Latent, found: Sentences, tokenizer: Tokenizer, max_length: int) -> Sentences:
    """`found`, but "This looks like a hen." of each item that is unfamiliar and has a sure suggestion.

    Its log-probability is that of the word as the network sees it.
    """
    if latent.unfamiliar is None or latent.suggested is None:
        return found
    rows: list[Tensor] = list(found.ids)
    capped, log_p, lengths = (part.clone() for part in (found.capped, found.log_probability, found.lengths))
    named = torch.zeros_like(capped)
    for row in latent.unfamiliar.nonzero()[:, 0].tolist():
        tokens, likely = latent.suggested.tokens[row, :, 0].tolist(), latent.suggested.likely[row].tolist()
        word, p = _narrowest([tokenizer.decode([token]).strip() for token in tokens], likely)
        ids = text.encode(f"This looks like {kinds.one(word)}.")
        if p >= SURE and len(ids) <= max_length:
            rows[row] = torch.tensor(ids, device=found.ids.device)
            capped[row], log_p[row], lengths[row], named[row] = False, log_p.new_tensor(p).log(), len(ids), True
    return Sentences(pad_sequence(rows, batch_first=True, padding_value=PAD), capped, log_p, lengths, named)


def _narrowest(words: list[str], likely: list[float]) -> tuple[str, float]:
    """Words and their probabilities, the likeliest first -> the word to say, and its probability."""
    p = min((each for each in likely if each >= NARROW), default=likely[0])
    alike = [word for word, each in zip(words, likely, strict=True) if abs(each - p) < ALIKE]
    return min(alike, key=kinds.words().index), p
