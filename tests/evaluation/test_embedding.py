"""z and u, and the probe that tells modalities apart where it can."""

import numpy as np
import pytest
import torch

from skipmodal.checkpoint import Checkpoint
from skipmodal.data.prepared import PreparedDataset
from skipmodal.errors import UserError
from skipmodal.evaluation.embedding import embed, evaluate_embedding, probe, project
from skipmodal.models.system import SkipModal
from skipmodal.tokenizer import Tokenizer
from skipmodal.translate import Translator
from tests.evaluation.test_tasks import parts  # noqa: F401


@pytest.fixture(params=["vector", "tokens"])
def world(toy, recipe, request):
    a, b = PreparedDataset(toy / "image-text"), PreparedDataset(toy / "text-speech")
    settings = recipe(model={"kind": request.param})
    torch.manual_seed(0)
    model = SkipModal(settings.model, b.meta.audio, a.meta.image, Tokenizer()).eval()
    return a, b, Translator(Checkpoint(model, settings, b.meta.audio, a.meta.image), torch.device("cpu"))


def clouds(distance):
    rng = np.random.default_rng(1)
    return {name: rng.normal(k * distance, 1, (200, 4)) for k, name in enumerate(("image", "text", "speech"))}


def test_the_probe_finds_what_is_there_and_no_more():
    assert probe(clouds(8)) > 0.99
    assert 0.25 < probe(clouds(0)) < 0.42
    crowded = {name: rows[:8].repeat(50, 1) for name, rows in clouds(0).items()}  # learned by heart, it is wrong
    assert probe(crowded) < 0.7


def test_rows_are_means_over_an_items_own_tokens(world):
    a, b, translator = world
    found = embed(translator, a, b, split="train", limit=7, batch_size=3)
    assert list(found.z) == ["image", "text", "speech"]
    assert {rows.shape for rows in (*found.z.values(), *found.u.values())} == {(7, 16)}
    assert found.modalities == ["image"] * 7 + ["text"] * 7 + ["speech"] * 7
    items_a, items_b = a.indices("train"), b.indices("train")
    texts = [a.texts(i)[0] for i in items_a[:4]] + [b.texts(i)[0] for i in items_b[4:7]]
    for place, sentence in enumerate(texts):  # an item's row doesn't depend on the others
        latent = translator.encode([translator.read(sentence, "text")], "text")
        np.testing.assert_allclose(found.u["text"][place], latent.u.mean(1)[0], atol=1e-5)
    wav = b.wav(items_b[6]).astype(np.float32) / 32768
    with torch.no_grad():
        caught = []
        translator.model.bottleneck.transformer.register_forward_hook(lambda module, args, z: caught.append(z))
        translator.encode([translator.read(wav, "speech")], "speech")
    np.testing.assert_allclose(found.z["speech"][6], caught[0].mean(0), atol=1e-5)


def test_c_is_asked_about_the_modalities_at_hand(world):
    a, b, translator = world
    last = translator.model.adversary.layers[-1]
    last.weight.data.zero_()
    last.bias.data = torch.tensor([2.0, 1.0, 3.0])  # speech, and where there is none, image
    assert [float(rows.mean()) for rows in embed(translator, a, split="train", limit=6).named.values()] == [1, 0]
    named = embed(translator, a, b, split="train", limit=6).named
    assert [float(rows.mean()) for rows in named.values()] == [0, 0, 1]
    figures = evaluate_embedding(translator, a, b, split="train", limit=6).figures
    assert figures["chance"] == pytest.approx(100 / 3)
    assert figures["modality from z, by C"] == pytest.approx(100 / 3)
    assert 0 <= figures["modality from z"] <= 100
    assert "modality from z, by C" not in evaluate_embedding(translator, b, split="train", adversary=False).figures


def test_what_does_not_fit_is_refused(parts):  # noqa: F811
    a, b, translator = parts
    with pytest.raises(UserError, match="give one of the other kind"):
        embed(translator, a, a)
    with pytest.raises(UserError, match="are too few"):
        embed(translator, a, b, limit=3)


@pytest.mark.parametrize("count", [2, 60])
def test_any_number_of_points_is_projected(count):
    rows = {name: values[:count] for name, values in clouds(50).items()}
    points = project(rows)
    assert points.shape == (3 * count, 2)
    assert np.isfinite(points).all()
    if count > 2:  # a point's neighbours are of its kind
        distances = np.linalg.norm(points[:, None] - points[None], axis=2) + np.diag(np.full(3 * count, np.inf))
        assert (distances.argmin(1) // count == np.arange(3 * count) // count).all()
