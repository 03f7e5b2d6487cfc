"""A tiny sweep on the toy world."""

import json

import pytest
import yaml

from skipmodal.recipe import dump_recipe


@pytest.fixture
def sweep(recipe, tmp_path):
    """Writes a sweep file and returns its path."""

    def make(
        seeds=(0, 1), systems=(("full", []), ("w/o M", ["model.memory=none"])), steps=4, paper=None, evaluate=None
    ):
        tree = dump_recipe(recipe(loss={"adversary": 0.0}, train={"max_steps": steps}))
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tree))
        data = {"limit": 4, "split": "train"}
        content = {
            "seeds": list(seeds),
            "evaluate": evaluate or [
                {"task": "toy", **data, "max_seconds": 0.2, "figures": ["img2text whole", "img2speech whole"]},
                {"task": "embedding", **data, "figures": ["modality from z", "modality from z, by C"]},
                {"task": "embedding", "pair": "image", **data, "figures": ["modality from z"]},
            ],
            "systems": [
                {"name": name, "recipe": str(tmp_path / "tiny.yaml"), "set": changes, "paper": paper or {}}
                for name, changes in systems
            ],
        }  # fmt: skip
        file = tmp_path / "sweep.yaml"
        file.write_text(json.dumps(content))  # JSON is YAML, without aliases
        return file

    return make
