"""`recipes/flickr8k/run.sh`: its order, and that it goes on where it was stopped. What it calls are stubs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "recipes" / "flickr8k" / "run.sh"
# Writes down how it was called, makes what the command would, and fails where the test says so.
STUB = """#!/bin/sh
echo "$@" >> "$CALLS"
case "$*" in *"$FAIL"*) exit 3 ;; esac
case "$1 $2" in
"prep text-speech") mkdir -p "$4" && cp "$3" "$4" && touch "$4/dataset.yaml" ;;
"prep image-text") mkdir -p "$4" && touch "$4/dataset.yaml" ;;
train*) while [ "$1" != --run ]; do shift; done; mkdir -p "$2/latest" ;;
export*) mkdir "$3" ;;
average*) mkdir "$5" ;;
esac
"""


SPEECH = "id\taudio\ttext\tsplit\n1\ta.wav\tA dog.\ttrain\n2\t/b.wav\tA cat.\ttrain\n3\tc.wav\tA cow.\ttest\n"


@pytest.fixture
def run(tmp_path: Path):
    """Runs the script: gives its status, what it called, and its stderr."""
    stub, calls = tmp_path / "bin" / "skipmodal", tmp_path / "calls"
    stub.parent.mkdir()
    stub.write_text(STUB)
    stub.chmod(0o755)

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "speech.tsv").write_text(SPEECH)

    def call(fail: str = "no command", *more: str, processes: str = "1") -> tuple[int, list[str], str]:
        calls.write_text("")
        env = {**os.environ, "PATH": f"{stub.parent}:{os.environ['PATH']}", "CALLS": str(calls), "FAIL": fail}
        done = subprocess.run(
            ["sh", SCRIPT, "photos", tmp_path / "data" / "speech.tsv", tmp_path / "runs", *more],
            capture_output=True, text=True, check=False, env={**env, "PROCESSES": processes},
        )  # fmt: skip
        return done.returncode, calls.read_text().splitlines(), done.stderr

    return call


def test_every_stage_in_order_and_its_time(run):
    status, calls, err = run("no command", "train.max_steps=3")
    assert status == 0, err
    words = [line.split() for line in calls]
    commands = [line[0] for line in words]
    assert commands == [
        "prep", "prep", "prep", "train", "train", "train", "average", "train", "train", "train", "calibrate", "export",
    ]  # fmt: skip
    trained = [line for line in words if line[0] == "train"]
    assert [line[1] for line in trained] == [
        "base", "base_seeing", "base_self_critical", "base_speech", "base_hearing", "base_finding",
    ]  # fmt: skip
    assert all("train.max_steps=3" in line for line in trained)
    assert "--init" not in trained[0] and "--resume" in trained[0]
    starts = "base/latest", "seeing/latest", "averaged", "speaking/latest", "hearing/latest"
    for line, start in zip(trained[1:], starts, strict=True):
        assert line[line.index("--init") + 1].endswith(start) and "--resume" not in line
    averaged = [path.split("/", 1)[-1].rsplit("runs/")[-1] for path in words[6][1:3]]
    assert averaged == ["seeing/latest", "critical/latest"]
    stages = [line.split(":")[0] for line in err.splitlines()]
    assert stages == [
        "photos",
        "recordings",
        "voices",
        "base",
        "seeing",
        "captions",
        "average",
        "speaking",
        "hearing",
        "finding",
        "confidence",
        "export",
    ]


def test_the_speech_encoder_also_hears_the_training_sentences_in_other_voices(run, tmp_path):
    _, calls, _ = run()
    (prepared,) = (line for line in calls if line.startswith("prep") and "--speak" in line)
    assert prepared.count("--speak") == 10
    folder, rows = tmp_path / "data", (tmp_path / "runs" / "voices" / "voices.tsv").read_text().splitlines()
    assert rows == [
        "id\taudio\ttext\tsplit",
        f"1\t{folder}/a.wav\tA dog.\ttrain", "1-again\t\tA dog.\ttrain",
        "2\t/b.wav\tA cat.\ttrain", "2-again\t\tA cat.\ttrain",
        f"3\t{folder}/c.wav\tA cow.\ttest",
    ]  # fmt: skip
    hearing, finding = calls[-4:-2]
    assert hearing.startswith("train base_hearing") and finding.startswith("train base_finding")
    for line in hearing, finding:
        assert line.rindex(f"data.text_speech={tmp_path}/runs/voices") > line.rindex("runs/speech")


def test_it_goes_on_where_it_was_stopped(run):
    status, calls, err = run("base_self_critical")
    assert status == 3 and calls[-1].startswith("train base_self_critical")
    assert [line.split(":")[0] for line in err.splitlines()][-2:] == ["seeing", "captions"]  # its time counts too
    status, calls, _ = run()
    assert status == 0
    assert [line.split()[0] for line in calls[:5]] == ["train", "train", "train", "average", "train"]  # no prep
    assert all("--resume auto" in line for line in calls[:2]) and "--init" in calls[2]
    status, calls, _ = run()
    assert status == 0 and all("--resume auto" in line for line in calls[:4])


def test_an_export_that_fails_leaves_the_one_before(run, tmp_path):
    run()
    old = tmp_path / "runs" / "exported"
    (old / "old").touch()
    status, _, err = run("export ")
    assert status == 3 and (old / "old").exists() and err.splitlines()[-1].startswith("export: ")
    assert run()[0] == 0 and not (old / "old").exists()
    assert not (tmp_path / "runs" / "exported.new").exists()


TORCH = """
from types import SimpleNamespace as N
device = lambda name: N(type=name, index=None)
cuda = N(is_available=lambda: GPU == "cuda", device_count=lambda: 1)
backends = N(mps=N(is_available=lambda: GPU == "mps"))
"""


@pytest.mark.parametrize(("torch", "processes"), [
    (f"GPU = 'cuda'{TORCH}", 1), (f"GPU = 'mps'{TORCH}", 1), (f"GPU = None{TORCH}", 2), ("raise ImportError", 2),
], ids=["cuda", "mps", "cpu", "no torch"])  # fmt: skip
def test_two_processes_share_a_training_where_there_is_no_gpu(run, tmp_path, monkeypatch, torch, processes):
    stubs = {"torchrun": 'echo "$1 $2 $3" >> "$CALLS"\nshift 5\n"$@"', "python3": f'exec "{sys.executable}" "$@"'}
    for name, script in stubs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "torch.py").write_text(torch)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    status, calls, err = run(processes="")
    assert status == 0, err
    assert calls.count("--standalone --nproc-per-node 2") == (6 if processes == 2 else 0)


def test_without_all_of_its_arguments_it_says_what_they_are():
    done = subprocess.run(["sh", SCRIPT, "photos"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "sh run.sh PHOTOS SPEECH RUNS" in done.stderr


@pytest.mark.parametrize("table", ["1\tA dog.\n2\tA cat.\n", "id\taudio\ttext\n1\ta.wav\tA dog.\n"])
def test_a_manifest_without_the_columns_is_refused_before_anything_is_trained(run, tmp_path, table):
    (tmp_path / "data" / "speech.tsv").write_text(table)
    status, calls, err = run()
    assert status == 1 and "must name the columns id, audio, text and split" in err
    assert {line.split()[0] for line in calls} == {"prep"} and not any("--speak" in line for line in calls)
