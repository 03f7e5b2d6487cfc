"""Of a picture unlike those of the training the thing is named, by word and by speech."""

from dataclasses import replace

import torch

from skipmodal import text
from skipmodal.audio import AudioConfig
from skipmodal.checkpoint import Checkpoint
from skipmodal.confidence import Confidence
from skipmodal.features import kinds
from skipmodal.image import ImageConfig
from skipmodal.models.latent import Latent, Suggested
from skipmodal.models.naming import name_unfamiliar
from skipmodal.models.search import Sentences
from skipmodal.recipe import load_recipe
from skipmodal.tokenizer import Tokenizer
from skipmodal.translate import Translator
from tests.models.decoders.test_copying import model, pictures  # noqa: F401  a fixture

CPU = torch.device("cpu")
TOKENIZER = Tokenizer((" dog", " bird"), kinds.names())


def latent_of(*suggested, unfamiliar):
    """Two items with words and their probabilities."""
    numbers = [[[TOKENIZER.number(form) for form in kinds.forms(word)] for word in of_one] for of_one in suggested]
    likely = torch.tensor([list(of_one.values()) for of_one in suggested])
    u = torch.zeros(2, 5, 4)
    given = Suggested(torch.tensor(numbers), likely)
    return Latent(u, u, torch.tensor([5, 5]), suggested=given, unfamiliar=torch.tensor(unfamiliar))


def said(latent, max_length=40):
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(text.encode(each)) for each in ("A dog.", "A man runs.")], True)
    found = Sentences(ids, torch.tensor([True, True]), torch.tensor([-3.0, -4.0]), torch.tensor([2, 3]))
    result = name_unfamiliar(latent, found, TOKENIZER, max_length)
    return [text.decode(row) for row in result.ids.tolist()], result


def test_the_narrowest_sure_word_of_unfamiliar_pictures():
    bird, owl = {"bird": 0.8, "hen": 0.6, "dog": 0.1}, {"owl": 0.3, "dog": 0.2, "bird": 0.2}
    sentences, found = said(latent_of(bird, owl, unfamiliar=[True, True]))
    assert sentences == ["This looks like a hen.", "This looks like an owl."]
    assert not found.capped.any() and torch.allclose(found.log_probability.exp(), torch.tensor([0.6, 0.3]))
    assert said(latent_of(bird, owl, unfamiliar=[False, True]))[0] == ["A dog.", "This looks like an owl."]


def test_of_words_that_differ_by_rounding_the_narrower_one():
    one, other = {"espresso": 0.9, "coffee": 0.89999}, {"coffee": 0.3, "espresso": 0.29999}
    sentences, found = said(latent_of(one, other, unfamiliar=[True, True]))
    assert sentences == ["This looks like espresso."] * 2 and found.named.all()


def test_what_is_not_sure_or_too_long_is_not_named():
    bird, unsure = {"bird": 0.8, "hen": 0.6}, {"owl": 0.2, "dog": 0.1}
    latent = latent_of(bird, unsure, unfamiliar=[True, True])
    assert said(latent)[0] == ["This looks like a hen.", "A man runs."]
    needed = len("This looks like a hen.") + 1
    assert said(latent, max_length=needed)[0][0] == "This looks like a hen."
    assert said(latent, max_length=needed - 1)[0] == ["A dog.", "A man runs."]
    assert said(replace(latent, unfamiliar=None))[0] == ["A dog.", "A man runs."]


@torch.no_grad()
def test_the_translator_knows_what_is_unfamiliar_and_how_sure_the_name_is(model):  # noqa: F811
    image = ImageConfig(size=16, encoder="efficientnet_lite0")
    prototypes, never = torch.eye(1, 1280), Confidence(slope=0.0, distance=0.0, intercept=0.0, far=2.0)
    for far, is_named in ((2.0, False), (-1.0, True)):
        sure = never.model_copy(update={"far": far})
        translator = Translator(
            Checkpoint(model, load_recipe("toy"), AudioConfig(), image, sure, prototypes), CPU, beam=2
        )
        latent = model.encode_image(pictures())
        for result in translator.decode(latent, "text"):
            assert result.named == result.unfamiliar == is_named
            assert (result.text == "This looks like a zebra.") == is_named
            expected = float(latent.suggested.likely[:, 0].min()) if is_named else 0.5
            assert abs(result.confidence - expected) < 0.05


@torch.no_grad()
def test_the_name_is_spoken(model):  # noqa: F811
    latent = replace(model.encode_image(pictures()), unfamiliar=torch.tensor([False, True]))
    assert latent.suggested.likely[:, 0].min() > 0.5
    _, sentences = model.generate_speech(latent, 60, 40, beam=2)
    assert text.decode(sentences.ids[1].tolist()) == "This looks like a zebra."
    assert text.decode(sentences.ids[0].tolist()) != "This looks like a zebra."
    torch.testing.assert_close(sentences.log_probability[1].exp(), latent.suggested.likely[1, 0])
