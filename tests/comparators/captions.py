"""Pictures with captions of a few words, and what a captioning system's test asks of them."""

from dataclasses import replace

import torch

from skipmodal import text
from skipmodal.image import ImageConfig
from skipmodal.tokenizer import Tokenizer
from tests.comparators.learning import learn
from tests.models.tiny import characters, make_batch, tokens_of

WORDS = (" a", " red", " blue", " dog", " cat", " runs", " sits", "two", " men")
CAPTIONS = ("a red dog runs", "two cat sits", "a blue men", "two men xy")
OWNERS = torch.tensor([0, 0, 1, 2])  # two captions of the first picture
PLAIN = {"width": 24, "dropout": 0.0}
SIZES = {**PLAIN, "attention_width": 12}
LITE0 = ImageConfig(size=16, encoder="efficientnet_lite0")


def batch_of(shape, captions=CAPTIONS, owners=OWNERS):
    """A batch of pictures with features of this shape (N, width)."""
    torch.manual_seed(3)
    count, ids = int(owners.max()) + 1, characters(*captions)
    batch = make_batch(
        ids, (ids != text.PAD).sum(1), torch.zeros(count, 3, 16, 16), torch.zeros(0), torch.zeros(0, dtype=torch.long),
        torch.zeros(0), tokens_of(Tokenizer(WORDS), *captions), owners,
    )  # fmt: skip
    own = torch.rand(count, 1, shape[1])  # what a picture is of
    return replace(batch, features=own * torch.rand(count, *shape))


def untrained(kind, batch, image=LITE0, sizes=SIZES, **settings):
    """A tiny system, after one step."""
    return learn(kind, 1, batch, words=WORDS, image=image, **sizes, **settings)[0]


def learns(kind, steps, batch, image=LITE0, lr=0.01, sizes=SIZES, **settings):
    """A system that has learned a batch by heart and gives back, by beam search, a caption of each picture."""
    system, first, last = learn(kind, steps, batch, lr, WORDS, image, **sizes, **settings)
    assert last < first
    with torch.no_grad():
        found = system.generate_text(system.encode_image(batch.features), 30, 3)
    said = [text.decode(ids) for ids in found.ids.tolist()]
    expected = [[c for c, owner in zip(CAPTIONS, OWNERS.tolist(), strict=True) if owner == i] for i in range(3)]
    assert all(one in of_picture for one, of_picture in zip(said, expected, strict=True)), said
    assert not found.capped.any()
    return system


def attention_after_another_token(decoder, latent, batch):
    """Attention (B, 1, S, N) along the captions, and along the same with another first token."""
    other = batch.tokens.clone()
    other[:, 0] = other[:, 0].roll(1)
    return [decoder(latent, tokens, OWNERS).attention for tokens in (batch.tokens, other)]


def first_step_elsewhere(decoder, latent, batch):
    """The first step's state, what it attends to, and the state with the weights of other places."""
    x, memory = decoder.embedded(batch.tokens[:3, :1])[:, 0], decoder.remember(latent)
    state = decoder.first(latent)
    y, weights, _ = decoder.step(x, memory, state)
    values, keys, mask = memory
    return y, weights, decoder.step(x, (values, keys.flip(1), mask), state)[0]
