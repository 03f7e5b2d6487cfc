"""The words of the kinds that published image encoders know."""

import pytest

from skipmodal.features import kinds
from skipmodal.tokenizer import LONGEST, Tokenizer


def test_every_kind_has_words_that_can_be_tokens():
    assert len(kinds.kinds()) == kinds.COUNT and all(kinds.kinds())
    assert kinds.kinds()[162] == ("beagle", "dog") and "cat" in kinds.kinds()[284]
    assert max(map(len, kinds.names())) <= LONGEST
    tokenizer = Tokenizer((" dog", " a"), kinds.names())
    assert tokenizer.words == (" dog", " a") and " dog" not in tokenizer.names and " dogs" in tokenizer.names
    numbers = {tokenizer.number(form) for word in kinds.words() for form in kinds.forms(word)}
    assert numbers <= set(range(len(tokenizer)))


@pytest.mark.parametrize(
    ("one", "more"),
    [("dog", "dogs"), ("fox", "foxes"), ("puppy", "puppies"), ("toy", "toys"), ("goldfish", "goldfish"),
     ("jeans", "jeans"), ("bus", "buses"), ("dress", "dresses"), ("wolf", "wolves"), ("bench", "benches")],
)  # fmt: skip
def test_plurals(one, more):
    assert kinds.plural(one) == more


@pytest.mark.parametrize(
    ("word", "said"),
    [("hen", "a hen"), ("owl", "an owl"), ("unicycle", "a unicycle"), ("umbrella", "an umbrella"), ("bread", "bread"),
     ("hourglass", "an hourglass"), ("boots", "boots"), ("mantis", "a mantis"),
     ("goldfish", "a goldfish"), ("bus", "a bus")],
)  # fmt: skip
def test_one_of_a_kind(word, said):
    assert word in kinds.words() and kinds.one(word) == said
