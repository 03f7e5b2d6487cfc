"""What is said of a picture unlike those of the training: the thing that its network takes it for, and no more.

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


def name_unfamiliar(latent: Latent, found: Sentences, tokenizer: Tokenizer, max_length: int) -> Sentences:
    """`found`, but "This looks like a hen." of each item that is unfamiliar and has a sure suggestion.

    Its log-probability is that of the word as the network sees it.
    """
    if latent.unfamiliar is None or latent.suggested is None:
        return found
    rows: list[Tensor] = list(found.ids)
    capped, log_p, lengths = (part.clone() for part in found[1:])
    for row in latent.unfamiliar.nonzero()[:, 0].tolist():
        likely, number = _thing(latent.suggested.likely[row])
        word = tokenizer.decode([int(latent.suggested.tokens[row, number, 0])]).strip()
        ids = text.encode(f"This looks like {kinds.one(word)}.")
        if likely >= SURE and len(ids) <= max_length:
            rows[row] = torch.tensor(ids, device=found.ids.device)
            capped[row], log_p[row], lengths[row] = False, log_p.new_tensor(likely).log(), len(ids)
    return Sentences(pad_sequence(rows, batch_first=True, padding_value=PAD), capped, log_p, lengths)


def _thing(likely: Tensor) -> tuple[float, int]:
    """Probabilities (kinds,), the likeliest first -> that of the word to say, and its number."""
    number = max(int((likely >= NARROW).sum()) - 1, 0)
    return float(likely[number]), number
