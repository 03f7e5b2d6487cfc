"""A tiny prepared toy world and a tiny recipe that all tests share."""

import os
import sys
from pathlib import Path

import pytest
import torch

_NO_NETWORK = Path(__file__).parent / "no_network"
sys.path.insert(0, str(_NO_NETWORK))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_NO_NETWORK), os.environ.get("PYTHONPATH"))))
sys.modules.pop("sitecustomize", None)  # one that the system has
import sitecustomize  # noqa: E402, F401

os.environ.setdefault("COLUMNS", "200")  # help texts and tables are not wrapped
torch.set_num_threads(1)  # tiny tensors: a second thread only waits

_TINY = {
    "n_k": 8, "d_k": 16, "heads": 2, "embedding": 16, "image_channels": [4, 4, 4, 8], "text_channels": 8,
    "text_banks": 2, "speech_channels": [2, 4], "speech_gru": 8, "text_decoder": 8, "speech_decoder": 16,
    "postnet_channels": 8, "postnet_banks": 2,
}  # fmt: skip
TINY_VECTOR = {"kind": "vector", **_TINY, "prenet": [8, 8]}
TINY_TOKENS = {"kind": "tokens", **_TINY, "text_layers": 1, "text_heads": 2}
TINY = {"vector": TINY_VECTOR, "tokens": TINY_TOKENS}  # by kind


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with image-text/, text-speech/ and photos/, 40 pictures and 30 sentences."""
    from skipmodal.data.toy import prepare_toy

    folder = tmp_path_factory.mktemp("toy") / "world"
    prepare_toy(folder, pictures=40, sentences=30, size=16)
    return folder


@pytest.fixture
def recipe(toy: Path):
    """A tiny Recipe on the toy world, of the kind that its model names, `vector` by default."""
    from skipmodal.recipe import parse_recipe

    def make(**sections):
        tree = {
            "data": {"image_text": str(toy / "image-text"), "text_speech": str(toy / "text-speech"), "batch_size": 6},
            "model": TINY.get(sections.get("model", {}).get("kind", "vector"), {}),
            "train": {
                "max_steps": 4,
                "log_every": 2,
                "eval_every": 1000,
                "eval_items": 4,
                "sample_items": 2,
                "device": "cpu",
            },
        }
        for section, values in sections.items():
            tree[section] = {**tree.get(section, {}), **values}
        return parse_recipe(tree, "tiny")

    return make


def write_captioned_pictures(folder: Path, prepare) -> Path:
    """A prepared image-text dataset of four pictures with one to three captions each."""
    from PIL import Image

    captions = [["a dog", "a big dog", "a dog that runs on the beach"], ["a cat on a sofa in a room"], ["a cat"], ["x"]]
    rows = []
    for i, texts in enumerate(captions):
        Image.new("RGB", (20, 20), (60 * i, 0, 0)).save(folder / f"{i}.png")
        rows += [f"{i}.png,train,{text}\n" for text in texts]
    (folder / "manifest.csv").write_text("image,split,text\n" + "".join(rows))
    prepare(folder / "manifest.csv", folder / "prepared")
    return folder / "prepared"
