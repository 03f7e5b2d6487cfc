"""Words that a picture's classifier suggests, and that D_txt can copy though its vocabulary lacks them."""

import pytest
import torch

from skipmodal.audio import AudioConfig
from skipmodal.config import TokensModel
from skipmodal.errors import UserError
from skipmodal.features import kinds
from skipmodal.image import ImageConfig
from skipmodal.models.decoders.copying import NEVER, merge
from skipmodal.models.encoders.kinds import KindTokens
from skipmodal.models.system import SkipModal
from skipmodal.recipe import parse_recipe
from skipmodal.text import BOS, PAD
from skipmodal.tokenizer import Tokenizer
from tests.conftest import TINY_TOKENS
from tests.models.tiny import tokens_of

TOKENIZER = Tokenizer((" dog", " a", " runs"), kinds.names())
ZEBRA = kinds.kinds().index(("zebra",))


@pytest.fixture(scope="module")
def model() -> SkipModal:
    torch.manual_seed(0)
    settings = {**TINY_TOKENS, "kinds": 3, "text_layers": 2}
    config = parse_recipe({"model": settings, "loss": {"letters": 1.0}}, "tiny").model
    model = SkipModal(config, AudioConfig(), ImageConfig(size=16, encoder="efficientnet_lite0"), TOKENIZER).eval()
    classifier = model.image_encoder.kinds.classifier  # type: ignore[union-attr]
    torch.nn.init.zeros_(classifier.bias).index_fill_(0, torch.tensor(ZEBRA), 9.0)
    return model


def pictures(count: int = 2) -> torch.Tensor:
    torch.manual_seed(1)
    return 0.1 * torch.rand(count, 49, 1280)


def test_a_word_is_as_likely_as_all_its_kinds():
    tokens = KindTokens(5, 8, TOKENIZER)
    features = pictures(1)
    p = tokens.classifier(features.mean(1)).softmax(1)[0]
    likely = {word: sum(float(p[i]) for i, of in enumerate(kinds.kinds()) if word in of) for word in kinds.words()}
    best = sorted(likely, key=lambda word: -likely[word])[:5]
    _, (numbers, probabilities) = tokens(features)
    assert numbers[0, :, 0].tolist() == [TOKENIZER.number(f" {word}") for word in best]
    assert probabilities[0].tolist() == pytest.approx([likely[word] for word in best])
    sheep = list(kinds.words()).index("sheep")
    assert tokens.numbers[sheep].tolist() == [TOKENIZER.number(" sheep"), PAD]


def test_both_ways_to_write_a_word_are_summed():
    logits, scores = torch.randn(1, 9), torch.randn(1, 2)
    tokens = torch.tensor([[4, 7]])
    both = merge(logits, scores, tokens, torch.tensor([[False, True]])).exp()
    assert torch.allclose(both[0, 4], logits[0, 4].exp() + scores[0, 0].exp())
    assert torch.allclose(both[0, 7], scores[0, 1].exp())  # hidden from the vocabulary
    others = [0, 1, 2, 3, 5, 6, 8]
    assert torch.equal(both[:, others], logits[:, others].exp())


def test_a_name_is_written_by_copying_alone(model):
    latent = model.encode_image(pictures())
    zebra = TOKENIZER.number(" zebra")
    assert (latent.suggested.tokens[:, 0, 0] == zebra).all() and latent.suggested.likely[0, 0] > 0.8
    target = tokens_of(TOKENIZER, " a dog runs")
    written = model.text_decoder(latent, target.expand(2, -1))
    names = torch.arange(len(TOKENIZER)) >= len(TOKENIZER) - len(TOKENIZER.names)
    suggested = torch.zeros(len(TOKENIZER), dtype=torch.bool).index_fill_(0, latent.suggested.tokens[0].flatten(), True)
    assert (written.logits[0, 0, names & ~suggested] == NEVER).all()
    assert (written.logits[0, 0, names & suggested] > NEVER / 2).all()
    text = model.encode_text(torch.tensor([[5, 6, 1]]), torch.tensor([3]))
    assert text.suggested is None
    assert (model.text_decoder(text, target).logits[0, 0, names] == NEVER).all()


@torch.no_grad()
def test_search_copies_as_teacher_forcing_does(model, monkeypatch):
    latent, copying = model.encode_image(pictures()), model.text_decoder.copying
    scores = type(copying).scores
    monkeypatch.setattr(type(copying), "scores", lambda self, *args: scores(self, *args) + 12.0)
    assert float((scores(copying, latent.u[:, :1, :8], copying.remember(latent), 2.0)
                  - scores(copying, latent.u[:, :1, :8], copying.remember(latent)))[0, 0, 0]) == pytest.approx(
        2 * float(latent.suggested.likely[0, 0]), abs=1e-5
    )  # fmt: skip
    found = model.text_decoder.generate(latent, 12)
    said = [TOKENIZER.decode(row) for row in found.ids.tolist()]
    assert " zebra" in said[0] and all(line.split().count("zebra") + line.split().count("zebras") <= 1 for line in said)
    step, state = model.text_decoder._stepper(latent)
    first, _ = step(torch.full((2, 1), BOS), state)
    forced = model.text_decoder(latent, tokens_of(TOKENIZER, " a", " a")).logits[:, 0]
    valid = model.text_decoder.spelling.lengths > 0
    torch.testing.assert_close(first[:, valid], forced[:, valid])


def test_copying_is_learned(model):
    model.train()
    try:
        latent = model.encode_image(pictures())
        written = model.text_decoder(latent, torch.full((2, 1), TOKENIZER.number(" zebra")))
        (-written.logits.log_softmax(-1)[:, 0, TOKENIZER.number(" zebra")]).sum().backward()
        for part in (model.text_decoder.copying.query, model.image_encoder.kinds.project, model.bottleneck):
            assert all(p.grad is not None for p in part.parameters())
        assert model.image_encoder.kinds.classifier.weight.grad is None
    finally:
        model.zero_grad()
        model.eval()


def test_without_a_network_that_names_things_there_are_no_kinds():
    with pytest.raises(UserError, match=r"model\.kinds"):
        SkipModal(TokensModel(kinds=3), AudioConfig(), ImageConfig(size=16), TOKENIZER)
