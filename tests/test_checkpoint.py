"""Checkpoints: the words travel beside the weights, and damaged ones are refused in one line."""

import shutil
import subprocess
import sys

import pytest
import torch
import yaml

from skipmodal.checkpoint import MAX_CONFIG_BYTES, WORDS, export_checkpoint, load_checkpoint
from tests.cli.test_commands import here, model, photo, untrained  # noqa: F401

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def worded(tmp_path_factory):
    """One whose D_txt writes two words as tokens."""
    return untrained(tmp_path_factory.mktemp("model") / "words", "tokens", words=(" dog", " runs"))


def test_the_words_travel_with_the_weights(worded, tmp_path):
    export_checkpoint(worded, tmp_path / "small")
    for folder in (worded, tmp_path / "small"):
        assert (folder / WORDS).read_text() == " dog\n runs\n"
        net = load_checkpoint(folder, CPU).model
        assert net.tokenizer.encode("a dog") == [*net.tokenizer.encode("a")[:-1], 66, 2]
        assert net.text_decoder.spelling.characters(torch.tensor([[67, 66]])).shape == (1, 9)


@pytest.mark.parametrize(
    "breakage", ["missing", "format", "yaml", "date", "aliases", "kind", "weights", "shape", "huge", "pickle"]
)
def test_damaged_checkpoints_are_refused_in_one_line(here, model, photo, tmp_path, breakage):  # noqa: F811
    folder = tmp_path / "broken"
    shutil.copytree(model, folder)
    config = folder / "config.yaml"
    tree = yaml.safe_load(config.read_text())
    if breakage == "missing":
        config.unlink()
    elif breakage == "format":
        config.write_text(yaml.safe_dump({**tree, "format": 99}))
    elif breakage == "yaml":
        config.write_text("a: [")
    elif breakage == "date":
        config.write_text("format: 2001-99-99")
    elif breakage == "aliases":
        config.write_text("a: &a [1]\nformat: [*a, *a]")
    elif breakage == "kind":
        tree["recipe"]["model"]["kind"] = ["vector"]
        config.write_text(yaml.safe_dump(tree))
    elif breakage == "weights":
        (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    elif breakage == "shape":
        tree["recipe"]["model"]["n_k"] = 9
        config.write_text(yaml.safe_dump(tree))
    elif breakage == "huge":
        tree["recipe"]["model"]["d_k"] = 10**9
        config.write_text(yaml.safe_dump(tree))
    else:
        torch.save({"a": 1}, folder / "model.safetensors")
    refused(here, folder, photo, tmp_path)


@pytest.mark.parametrize(
    "content",
    [None, b"", b" dog\n", b" dog\n runs\n cat\n", b" dog\n dog\n", b" dog\n r?ns\n", b" dog\n\n", b"\xff\n\xfe\n",
     b" dog\n runs", b" dog\n" + b"x" * 40 + b"\n", b"a\n" * MAX_CONFIG_BYTES],
)  # fmt: skip
def test_damaged_words_are_refused_in_one_line(here, worded, photo, tmp_path, content):  # noqa: F811
    folder = tmp_path / "broken"
    shutil.copytree(worded, folder)
    (folder / WORDS).unlink()
    if content is not None:
        (folder / WORDS).write_bytes(content)
    refused(here, folder, photo, tmp_path)


def refused(here, folder, photo, tmp_path):  # noqa: F811
    status, _, err = here("img2speech", photo, "-m", folder, "-o", tmp_path / "o.wav")
    assert status == 1
    assert str(folder) in err
    assert err.count("\n") == 1 and len(err) < 600


def test_loading_a_checkpoint_imports_no_compiler(worded):
    none = "assert 'sympy' not in sys.modules"
    plain = f"import sys, torch\ntorch.zeros(1, device='meta')\n{none}"
    if subprocess.run([sys.executable, "-c", plain], check=False, capture_output=True).returncode:
        pytest.skip("this version of torch imports its compiler for any tensor on the meta device")
    code = (
        "import sys, torch\nfrom pathlib import Path\nfrom skipmodal.checkpoint import load_checkpoint\n"
        f"load_checkpoint(Path({str(worded)!r}), torch.device('cpu'))\n{none}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
