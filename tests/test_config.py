import re
import time
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from skipmodal import recipe
from skipmodal.audio import AudioConfig
from skipmodal.config import TokensRecipe, VectorRecipe, describe
from skipmodal.errors import UserError
from skipmodal.recipe import KINDS, dump_recipe, load_recipe, parse_recipe, recipe_names


@pytest.fixture
def write(tmp_path):
    """Writes a recipe file; gives its path as the command line would."""

    def write(content, name="r.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def refusal(name, overrides=None):
    with pytest.raises(UserError) as caught:
        load_recipe(name, overrides)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 3000
    return message


def changes(recipe):
    """What differs from the defaults, flat."""
    default = dump_recipe(KINDS[recipe.model.kind]())
    tree = dump_recipe(recipe)
    return {f"{s}.{k}": v for s, keys in tree.items() for k, v in keys.items() if v != default[s][k]}


# Shipped recipes


def test_paper_is_the_defaults_and_states_every_key():
    assert load_recipe("paper") == VectorRecipe()
    stated = yaml.safe_load((recipe.recipes_folder() / "paper.yaml").read_text())
    assert {section: set(keys) for section, keys in stated.items()} == {
        section: set(keys) for section, keys in dump_recipe(VectorRecipe()).items()
    }


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads_and_survives_a_round_trip(name):
    recipe = load_recipe(name)
    assert parse_recipe(yaml.safe_load(yaml.safe_dump(dump_recipe(recipe))), "copy") == recipe
    if name != "paper":
        assert changes(recipe)


def test_fine_tuning_on_librispeech_has_the_losses_of_speech_to_text_alone():
    recipe = load_recipe("librispeech_finetune")
    assert recipe.loss.weights().keys() == {"text_from_speech", "ctc", "guided_attention"}
    assert recipe.model == load_recipe("base").model
    assert recipe.data.sampling == "text-speech"
    assert recipe.train.only == ("speech_encoder", "speech_letters", "text_decoder")


def test_the_papers_ablations_differ_in_one_key():
    expected = {
        "no_memory": {"model.memory": "none"}, "memory_to_fc": {"model.memory": "fc"},
        "no_transformer": {"model.transformer": False}, "no_adversary": {"loss.adversary": 0},
        "alternate": {"data.sampling": "alternate"}, "memory_10": {"model.n_k": 10},
        "memory_256": {"model.n_k": 256}, "width_64": {"model.d_k": 64}, "width_128": {"model.d_k": 128},
    }  # fmt: skip
    assert {name: changes(load_recipe(name)) for name in expected} == expected
    assert {*expected, "paper"} <= set(recipe_names())


# Files


@pytest.mark.parametrize("content", ["", "\n# nothing\n", "---\n", "null", "optim:\nmodel:\n", "extends: null"])
def test_an_empty_file_or_section_is_the_defaults(write, content):
    assert load_recipe(write(content)) == VectorRecipe()


def test_a_file_states_only_what_differs(write):
    recipe = load_recipe(write("\ufeffoptim: {lr: 1e-3}\nmodel:\n  prenet: [64]\ndata: {image_text: /a/é}"))
    assert changes(recipe) == {"optim.lr": 0.001, "model.prenet": [64], "data.image_text": "/a/é"}


def test_extends_goes_through_files_and_shipped_recipes(write, monkeypatch, tmp_path):
    write("extends: no_memory\noptim: {lr: 0.1, warmup_steps: 5}", "sub/base.yaml")
    write("extends: base\noptim: {lr: 0.2}", "sub/by_name.yaml")
    last = write("extends: by_name.yaml\ntrain: {seed: 3}", "sub/by_file.yaml")
    expected = {"model.memory": "none", "optim.lr": 0.2, "optim.warmup_steps": 5, "train.seed": 3}
    assert changes(load_recipe(last)) == expected
    monkeypatch.chdir(tmp_path)  # beside the file that says so, wherever it is read from
    assert changes(load_recipe("sub/by_file.yaml")) == expected
    write("extends: sub/by_file.yaml", "top.yaml")
    assert changes(load_recipe("top.yaml")) == expected
    write(f"extends: {tmp_path / 'top.yaml'}", "absolute")
    assert changes(load_recipe("absolute")) == expected


def test_a_section_of_an_overlay_adds_to_the_base(write):
    write("model: {n_k: 7}\nloss: {mel: 2}", "base.yaml")
    recipe = load_recipe(write("extends: base\nmodel:\nloss: {linear: 3}"))
    assert changes(recipe) == {"model.n_k": 7, "loss.mel": 2, "loss.linear": 3}


def test_circles_are_named(write):
    write("extends: b", "a.yaml")
    write("extends: c.yaml", "b.yaml")
    assert refusal(write("extends: a", "c.yaml")).endswith("c.yaml: extends itself")
    assert refusal(write("extends: r")).endswith("r.yaml: extends itself")


@pytest.mark.parametrize("base", ["[paper]", "{a: b}", "3", "true"])
def test_extends_takes_one_name(write, base):
    assert "extends takes the name of one recipe" in refusal(write(f"extends: {base}"))


def test_recipes_that_do_not_exist(write, tmp_path):
    message = refusal("papre")
    assert message.startswith("recipe 'papre': no such file, and not one of the shipped: ")
    assert "paper" in message
    assert "No such file" in refusal(str(tmp_path / "none.yaml"))
    assert "no such file" in refusal(write("extends: nowhere"))
    assert "no such file" in refusal("x" * 300)
    assert "no such file" in refusal("a\0b")
    (tmp_path / "folder.yaml").mkdir()
    assert "directory" in refusal(str(tmp_path / "folder.yaml"))


# Bad keys and values


def test_every_problem_is_listed_at_once_with_a_suggestion(write):
    message = refusal(
        write("modle: {}\nlr: 1\noptim: {wramup_steps: 3, lr: fast, epochs: 2}\ndata: {batch_size: 1}\nloss: 5")
    )
    assert message.partition("r.yaml: ")[2].split("; ") == [
        "data.batch_size: Input should be greater than or equal to 2 (it is 1)",
        "loss: must be a section with keys",
        "optim.lr: Input should be a valid number, unable to parse string as a number (it is 'fast')",
        "optim.wramup_steps: unknown key, did you mean optim.warmup_steps?",
        "optim.epochs: unknown key, did you mean train.epochs?",
        "modle: unknown key, did you mean model?",
        "lr: unknown key, did you mean optim.lr?",
    ]


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("model: {d_k: 10, heads: 4}", r"model: d_k \(10\) must be a multiple of heads \(4\)"),
        ("model: {kind: tokens, text_heads: 3}", r"text_decoder \(128\) must be a multiple of text_heads \(3\)"),
        ("model: {kind: grid}", "model.kind: .*'vector', 'tokens', .*it is 'grid'"),
        ("model: {kind: [tokens]}", "model.kind: .*'vector', 'tokens',"),
        ("model: {kind: tokens}\nloss: {letters: 0}", "loss.mel needs loss.letters"),
        ("model: {kind: tokens}\nloss: {ctc: 0}", "speech to text needs loss.ctc"),
        ("model: {kind: tokens}\nloss: {text_from_image: 0, round_trip: 1}", "loss.round_trip needs"),
        ("loss: {adversary: 0, adversary_ramp: 100}", "loss: loss.adversary_ramp needs loss.adversary"),
        ("model: {memory: big}", "model.memory: .*'attention', 'wide', 'fc', 'wide_fc' or 'none'"),
        ("model: {n_k: 0}", "model.n_k: .*greater than 0"),
        ("model: {n_k: 1000000000}", "model.n_k: .*less than or equal to 8192"),
        ("model: {image_channels: []}", "model.image_channels: .*at least 1"),
        ("model: {speech_channels: [1]}", "model.speech_channels.1: Field required"),
        ("model: {dropout: 1}", "model.dropout: .*less than 1"),
        ("optim: {lr: .inf}", r"optim.lr: .*finite number \(it is inf\)"),
        ("loss: {mel: .nan}", "loss.mel: .*finite number"),
        ("optim: {betas: [0.9, 1.0]}", "optim.betas.1: .*less than 1"),
        ("train: {seed: -1}", "train.seed: .*greater than or equal to 0"),
        ("train: {max_steps: 1.5}", "train.max_steps: .*integer"),
        ("1: 2", "1: Keys should be strings"),
        ("train: {epochs: 1000000001}", "train.epochs: .*less than or equal to 1000000000"),
        ("optim: {accumulate: 1000000001}", "optim.accumulate: .*less than or equal to"),
        ("data: {batch_size: 1000001}", "data.batch_size: .*less than or equal to"),
        ("data: {linear_frames: 0}", "data.linear_frames: .*greater than 0"),
    ],
)
def test_values_that_make_no_sense(write, section, words):
    assert re.search(words, refusal(write(section)))


def test_long_values_and_long_lists_are_cut(write):
    message = refusal(write(f"optim: {{lr: {'x' * 50_000}}}"))
    assert "xxx...xxx" in message
    assert len(message) < 300
    message = refusal(write("\n".join(f"key_{i}: {{}}" for i in range(5000))))
    assert message.endswith("; and 4980 more")


def test_integers_that_python_refuses_to_write_are_described():
    for value in (10**5000, [10**5000]):
        with pytest.raises(UserError, match=r"train\.epochs: .*an integer of 16610 bits"):
            parse_recipe({"train": {"epochs": value}}, "mine")


@pytest.mark.parametrize("base", ['"a\\0b"', '"a\\0b.yaml"', '"\\uD800"', '"\\uD800.yaml"', "x" * 300 + ".yaml"])
def test_extends_of_a_name_that_no_file_can_have(write, base):
    assert re.search("cannot be read|no such file", refusal(write(f"extends: {base}")))


def test_other_models_are_described_too():
    with pytest.raises(ValidationError) as caught:
        AudioConfig(n_mel=80, hop_length=1)
    assert describe(caught.value, AudioConfig) == (
        "hop_length: Input should be greater than or equal to 8 (it is 1); n_mel: unknown key, did you mean n_mels?"
    )
    assert describe(caught.value).endswith("n_mel: unknown key")


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("model: {text_heads: 2}", "model.text_heads"),
        ("loss: {guided_attention: 1}", "loss.guided_attention"),
        ("model: {kind: vector}\nloss: {duration: 1}", "loss.duration"),
        ("model: {kind: tokens, prenet: [8]}", "model.prenet"),
        ("model: {kind: tokens, history_dropout: 0.5}", "model.history_dropout"),
        ("model: {kind: tokens}\nloss: {stop: 1}", "loss.stop"),
    ],
)
def test_keys_of_the_other_kind_are_refused(write, content, key):
    assert refusal(write(content)).endswith(f"r.yaml: {key}: does nothing for this model.kind")


def test_each_kind_has_its_own_model_and_losses(write):
    vector, tokens = load_recipe(write("")), load_recipe(write("model: {kind: tokens}"))
    assert (type(vector), type(tokens)) == (VectorRecipe, TokensRecipe)
    weights = [set(each.loss.weights()) for each in (vector, tokens)]
    assert weights[0] - weights[1] == {"stop"}
    assert weights[1] - weights[0] == {"flow", "duration", "prosody", "alignment", "ctc", "letters"}
    terms = {term.name: term for term in tokens.loss.terms()}
    assert set(terms) >= {"guided_attention", "distance", "adversary"} and "adversary_ramp" not in terms
    assert not terms["adversary"].selects and terms["mel"].selects and terms["mel"].data == "text-speech"


# Overrides


def test_overrides_take_yaml_values():
    given = [
        "optim.lr=1e-3", "train.max_steps=10", "model.transformer=false", "model.prenet=[128, 64]",
        "train.device=cuda:0", "data.text_speech=a=b", "loss={mel: 2, linear: 0}", "optim.betas=[0.5, 0.9]",
    ]  # fmt: skip
    assert changes(load_recipe("paper", given)) == {
        "optim.lr": 0.001, "train.max_steps": 10, "model.transformer": False, "model.prenet": [128, 64],
        "train.device": "cuda:0", "data.text_speech": "a=b", "loss.mel": 2, "loss.linear": 0,
        "optim.betas": [0.5, 0.9],
    }  # fmt: skip


def test_overrides_come_last_and_in_order(write):
    path = write("train: {max_steps: 5}\noptim:\n")
    assert load_recipe(path, ["train.max_steps=null"]).train.max_steps is None
    assert load_recipe(path, ["optim.lr=1", "optim.lr=2"]).optim.lr == 2
    assert load_recipe(path).train.max_steps == 5


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.lr", "write it as section.key=value"),
        ("", "write it as section.key=value"),
        ("=3", "write it as section.key=value"),
        ("optim.lr.x=3", "lr is a value, not a section"),
        ("optim.lrr=3", "optim.lrr: unknown key, did you mean optim.lr?"),
        ("lr=3", "lr: unknown key, did you mean optim.lr?"),
        ("optim.lr=", "optim.lr: Input should be a valid number"),
        ("optim=5", "optim: must be a section with keys"),
        ("model.prenet=[1", "is not valid YAML (line 1, column 3: expected ',' or ']'"),
        ("extends=no_memory", "extends: unknown key"),
        ("optim.lr=!!python/object/apply:os.getcwd []", "is not valid YAML"),
        ("..=1", "unknown key"),
    ],
)
def test_bad_overrides(override, words):
    assert words in refusal("paper", [override])


# Hostile files


def test_code_is_not_run(write, tmp_path):
    trace = tmp_path / "trace"
    for tag in ("object/apply:pathlib.Path.touch", "object/new:os.system", "name:os.system", "module:os", "tuple"):
        message = refusal(write(f"train: {{device: !!python/{tag} ['{trace}']}}"))
        assert "could not determine a constructor" in message
    assert not trace.exists()


def bombs():
    tens = ", ".join(["*a{}"] * 10)
    lists = ["a0: &a0 [lol]"] + [f"a{i}: &a{i} [{tens.replace('{}', str(i - 1))}]" for i in range(1, 12)]
    maps = ["a0: &a0 {k: 1}"]
    maps += [f"a{i}: &a{i} {{" + ", ".join(f"k{j}: *a{i - 1}" for j in range(10)) + "}" for i in range(1, 12)]
    merges = ["a0: &a0 {k: 1}"] + [f"a{i}: &a{i} {{<<: [{tens.replace('{}', str(i - 1))}]}}" for i in range(1, 12)]
    yield pytest.param("\n".join(lists), "aliases (*name) are not allowed", id="laughs")
    yield pytest.param("\n".join(maps), "aliases (*name) are not allowed", id="laughing maps")
    yield pytest.param("\n".join(merges), "aliases (*name) are not allowed", id="laughing merges")
    yield pytest.param("model: &a {prenet: *a}", "aliases (*name) are not allowed", id="snake")
    yield pytest.param("[" * 5_000, "nested too deeply", id="open lists")
    yield pytest.param("a: " + "{a: " * 5_000, "nested too deeply", id="open maps")
    yield pytest.param("optim: {lr: " + "[" * 150 + "]" * 150 + "}", "optim.lr: Input should be a valid", id="deep")
    yield pytest.param("#" * 200_000, "too large for a recipe", id="large")
    yield pytest.param("optim: {lr: 1}\noptim: {clip_norm: 2}", "the key 'optim' is given twice", id="twice")
    yield pytest.param("optim:\n  lr: 1\n  lr: 2", "line 2, column 3: the key 'lr' is given twice", id="twice below")
    yield pytest.param("? [1, 2]\n: 3", "unhashable key", id="list as key")
    yield pytest.param("train: {seed: " + "9" * 5000 + "}", "not valid YAML", id="huge integer")
    for name, number in {
        "decimal": "9" * 400,
        "10^20": "1" + "0" * 20,
        "hex": "0x" + "f" * 4000,
        "60": "1:" * 3000,
    }.items():
        yield pytest.param(
            f"train: {{epochs: {number}1}}", "line 1, column 17: a number is too large", id=f"huge {name}"
        )
    yield pytest.param("train: {device: 2001-99-99}", "not valid YAML", id="no date")
    yield pytest.param("train: {seed: !!int ''}", "not valid YAML", id="empty integer")
    yield pytest.param("train: {seed: !!bool x}", "not valid YAML", id="no bool")
    yield pytest.param("train: {seed: !!timestamp x}", "not valid YAML", id="no timestamp")
    yield pytest.param("a: b: c", "line 1, column 5: mapping values are not allowed here", id="colons")
    yield pytest.param("optim:\n\tlr: 1", "line 2, column 1", id="tab")
    yield pytest.param("a: 1\n---\nb: 2", "but found another document", id="two documents")
    yield pytest.param("a\0b", "not valid YAML", id="null byte")
    yield pytest.param("- a\n- b", "must be sections with keys", id="list")
    yield pytest.param("just text", "must be sections with keys", id="text")
    yield pytest.param("optim: {lr: é}".encode("latin-1"), "is not UTF-8 text", id="latin-1")
    yield pytest.param("optim: {}".encode("utf-16"), "is not UTF-8 text", id="utf-16")


@pytest.mark.parametrize(("content", "words"), list(bombs()))
def test_hostile_files_are_one_line(write, content, words):
    path = write(content)
    start = time.process_time()
    message = refusal(path)
    assert time.process_time() - start < 5  # a bomb takes years
    assert words in message
    assert message.startswith(f"recipe {path}: ")


def test_an_installed_package_reads_the_recipes_inside_it(monkeypatch, tmp_path):
    package = tmp_path / "skipmodal"
    (package / "recipes").mkdir(parents=True)
    (package / "recipes" / "mine.yaml").write_text("optim: {lr: 1}")
    monkeypatch.setattr(recipe, "__file__", str(package / "recipe.py"))
    assert recipe_names() == ["mine"]
    assert load_recipe("mine").optim.lr == 1
    assert isinstance(load_recipe("mine").data.image_text, Path)
