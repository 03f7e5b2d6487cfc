"""The sweep file: what is shipped is sound, and everything wrong in one is told before anything trains."""

import importlib.util
import json

import pytest
import yaml

from skipmodal.errors import UserError
from skipmodal.evaluation import measure
from skipmodal.evaluation.published import TABLES
from skipmodal.recipe import load_recipe, recipes_folder
from skipmodal.sweep.plan import SweepFile, load_plan


def test_runs_are_systems_times_seeds_with_all_overrides_in_order(sweep, tmp_path):
    file = sweep(seeds=[0, 7], systems=[("full", []), ("w/o M", ["model.memory=none", "optim.lr=0.5"])])
    plan = load_plan(str(file), tmp_path / "runs", ["train.max_steps=9"])
    assert [(run.system, run.seed) for run in plan.runs] == [("full", 0), ("w/o M", 0), ("full", 7), ("w/o M", 7)]
    assert [run.folder.name for run in plan.runs] == ["full-s0", "w-o-M-s0", "full-s7", "w-o-M-s7"]
    last = plan.runs[-1].recipe
    assert (last.model.memory, last.optim.lr, last.train.max_steps, last.train.seed) == ("none", 0.5, 9, 7)
    assert plan.runs[0].recipe.optim.lr == 0.002
    assert plan.columns == (
        "img2text whole",
        "img2speech whole",
        "modality from z",
        "modality from z, by C",
        "modality from z (image or text)",
    )


SHIPPED = sorted(path.stem for path in (recipes_folder() / "sweeps").glob("*.yaml"))
ABLATIONS = {"toy": "tokens", "toy_paper": "vector"}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_sweeps_are_sound(name):
    file = SweepFile.model_validate(yaml.safe_load((recipes_folder() / "sweeps" / f"{name}.yaml").read_text()))
    kinds = set()
    for system in file.systems:
        for part in system.parts:
            kinds.add(load_recipe(part.recipe, [*file.overrides, *part.overrides]).model.kind)
        for table, row in system.paper.items():
            assert row in [each[0] for each in TABLES[table].rows]
    for each in file.evaluate:
        assert set(each.figures) <= set(measure.FIGURES[each.task])
    if name in ABLATIONS:
        assert file.seeds == (0, 1, 2) and kinds == {ABLATIONS[name]}
        names = [system.name for system in file.systems]
        assert names[:6] == ["full", "w/o M", "M -> FC", "w/o T", "with L_adv", "alternate"]


def test_every_problem_is_told_at_once(sweep, toy, tmp_path):
    file = sweep(
        seeds=[1, 1],
        systems=[
            ("a b", ["optim.lrr=1"]),
            ("a-b", ["train.seed=3"]),
            ("c", ["data.image_text=nowhere"]),
            ("c", []),
            ("d", [f"data.image_text={toy / 'text-speech'}"]),
        ],
        evaluate=[
            {"task": "toy", "figures": ["img2text hole"]},
            {"task": "img2speech", "figures": ["WER"]},
            {"task": "text2speech", "transcriber": "ears:x", "figures": ["CER"]},
            {"task": "img2text", "pair": "image", "figures": ["BLEU-1", "BLEU-1"]},
        ],
        paper={"table 4": "Ma et al. w/o Z", "table 9": "Ma et al."},
    )
    with pytest.raises(UserError) as caught:
        load_plan(str(file), tmp_path)
    for problem in (
        "a b: recipe", "optim.lrr: unknown key, did you mean optim.lr?", "a-b: train.seed is what `seeds` is for",
        "nowhere: ", "seed 1: given twice", "'c' is given twice", "two names make the same folder, a-b",
        "toy has no figure 'img2text hole'; it has img2text size",
        "is a text-speech dataset where image-text is needed", "img2speech needs a `transcriber`",
        "transcriber 'ears:x'", "img2text has no use for a `pair`",
        "'BLEU-1 (image or text)' is given twice",
        "table 4 has no row 'Ma et al. w/o Z'; it has: Ma et al. w/o M",
        "the paper has no 'table 9'; there are: table 1",
    ):  # fmt: skip
        assert problem in str(caught.value), problem
    assert not (tmp_path / "a-b-s1").exists()


def test_what_a_system_cannot_do_and_what_is_not_installed_is_told_before_it_trains(sweep, toy, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sklearn" else found(name))
    file = sweep()
    content = json.loads(file.read_text())
    data = [f"data.image_text={toy / 'image-text'}", f"data.text_speech={toy / 'text-speech'}"]
    content["systems"][1] = {"name": "speaks", "recipe": "tacotron", "set": data}
    content["evaluate"].append({"task": "img2text", "figures": ["BLEU-1"]})
    file.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        load_plan(str(file), tmp_path)
    assert "full" not in str(caught.value)
    able = "can't be measured: a model of kind tacotron reads text and writes speech"
    for problem in (
        f"speaks: toy {able}",
        f"speaks: embedding {able}",
        f"speaks: img2text {able}",
        "needs scikit-learn",
    ):
        assert problem in str(caught.value), problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds: []\nsystems: 3", r"seeds: .*; evaluate: Field required; systems: "),
        ("sedes: [1]", "sedes: unknown key, did you mean seeds"),
        ("- 1", "."),
        ("systems: [{name: x, recipe: toy, sett: []}]", r"systems\.0\.sett: unknown key"),
        ("systems: [{name: 'a\tb', recipe: toy}]", r"systems\.0\.name"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_file_of_another_form_is_one_line(tmp_path, text, message):
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_plan(str(file), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_name_that_is_not_shipped(tmp_path):
    with pytest.raises(UserError, match=r"not one of the shipped: .*toy, toy_paper"):
        load_plan("nothing", tmp_path)
