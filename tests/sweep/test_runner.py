"""Runs that are done, cut, changed or failed, in this process and in two."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from skipmodal.errors import UserError
from skipmodal.sweep import runner
from skipmodal.sweep.executors import in_processes, in_this_process
from skipmodal.sweep.plan import load_plan
from skipmodal.sweep.runner import check_unchanged, execute, read_result


def weights(run):
    return (run.folder / "latest" / "model.safetensors").read_bytes()


def command(file, folder, *more):
    return [sys.executable, "-m", "skipmodal", "sweep", str(file), *more, "--run", str(folder)]


def call(*arguments):
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def test_two_systems_and_two_seeds_become_one_table_and_are_not_trained_twice(sweep, tmp_path):
    file, folder = sweep(), tmp_path / "runs"
    done = call(file, folder)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert [line.split(": ")[0:2] for line in lines] == [
        ["1 of 4", "full, seed 0"], ["2 of 4", "w/o M, seed 0"], ["3 of 4", "full, seed 1"], ["4 of 4", "w/o M, seed 1"]
    ]  # fmt: skip
    assert done.stdout == (folder / "table.md").read_text()
    record = json.loads((folder / "w-o-M-s1" / "result.json").read_text())
    assert (record["system"], record["seed"], record["overrides"]) == ("w/o M", 1, ["model.memory=none"])
    assert record["settings"][0]["model"]["memory"] == "none"
    assert record["cpu_seconds"] > 0
    assert record["figures"]["modality from z, by C"] is None  # C was not trained
    assert 0 <= record["figures"]["modality from z"] <= 100
    assert 0 <= record["figures"]["modality from z (image or text)"] <= 100
    assert (folder / "full-s0" / "eval" / "1-toy" / "items.jsonl").is_file()
    plan = load_plan(str(file), folder)
    full = [run for run in plan.runs if run.system == "full"]
    assert weights(full[0]) != weights(full[1])
    before = {run: (run.folder / "result.json").stat().st_mtime_ns for run in plan.runs}
    again = call(file, folder)
    assert again.stderr.splitlines() == ["4 of 4 runs are done already"]
    assert again.stdout == done.stdout
    assert before == {run: (run.folder / "result.json").stat().st_mtime_ns for run in plan.runs}


def test_two_processes_come_to_the_same_weights(sweep, tmp_path):
    alone = load_plan(str(sweep(seeds=[0])), tmp_path / "alone").runs
    both = load_plan(str(sweep(seeds=[0])), tmp_path / "both").runs
    assert all(result.error is None for _, result in in_this_process(alone))
    results = dict(in_processes(both, 2))
    assert set(results) == set(both)
    for one, other in zip(alone, both, strict=True):
        assert results[other].error is None
        assert weights(one) == weights(other)
        assert read_result(one).figures == results[other].figures


def test_what_was_killed_goes_on_to_the_same_weights(sweep, tmp_path):
    jobs, system = "2", [("full", [])]
    file, folder = sweep(seeds=[0], steps=60, systems=system), tmp_path / "cut"
    always = ("train.checkpoint_minutes=0",)
    process = subprocess.Popen(
        command(file, folder, *always, "--jobs", jobs), stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip
    latest = folder / "full-s0" / "latest"
    deadline = time.monotonic() + 90
    while not latest.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (folder / "full-s0" / "result.json").exists()
    done = call(file, folder, *always, "--jobs", jobs)
    assert done.returncode == 0, done.stderr
    straight = load_plan(str(file), tmp_path / "straight", always).runs
    cut = load_plan(str(file), folder, always).runs
    log = (cut[0].folder / "train.log").read_text()
    assert "step 0 of 60" in log
    starts = [int(line.split("step ")[1].split()[0]) for line in log.splitlines() if " of 60 on cpu" in line]
    assert len(starts) == 2 and 0 < starts[1] < 60
    for one, other in zip(straight, cut, strict=True):
        execute(one)
        assert weights(one) == weights(other)
        assert read_result(one).figures == read_result(other).figures


def test_a_changed_system_is_refused_by_name(sweep, tmp_path):
    (run,) = load_plan(str(sweep(seeds=[0], systems=[("full", [])])), tmp_path / "runs").runs
    execute(run)
    (other,) = load_plan(str(sweep(seeds=[0], systems=[("full", ["optim.lr=0.1"])])), tmp_path / "runs").runs
    with pytest.raises(UserError, match=r"full, seed 0: .*full-s0 was made with optim\.lr=0\.002; set it so"):
        check_unchanged(other)
    (run.folder / "result.json").unlink()  # cut short, it is the same
    done = call(tmp_path / "sweep.yaml", tmp_path / "runs")
    assert done.returncode == 1
    assert "full, seed 0: " in done.stderr and len(done.stderr.splitlines()) == 1


def test_other_figures_are_measured_without_training(sweep, tmp_path):
    (run,) = load_plan(str(sweep(seeds=[0], systems=[("full", [])])), tmp_path / "runs").runs
    execute(run)
    before = weights(run)
    evaluate = [{"task": "speech2text", "limit": 3, "figures": ["WER"]}]
    (asked,) = load_plan(str(sweep(seeds=[0], systems=[("full", [])], evaluate=evaluate)), tmp_path / "runs").runs
    assert read_result(asked) is None
    assert list(execute(asked).figures) == ["speech2text WER"]
    assert weights(run) == before
    assert read_result(asked) is not None


def test_a_second_model_says_what_the_first_writes(sweep, tmp_path):
    ears = tmp_path / "ears"
    ears.write_text("#!/bin/sh\necho big red circle left\n")
    ears.chmod(0o755)
    file = sweep(seeds=[0], systems=[("Piecewise", [])], evaluate=[
        {"task": "img2speech", "limit": 2, "max_seconds": 0.2,
         "transcriber": f"command:{ears}", "figures": ["WER"]}])  # fmt: skip
    tree = json.loads(file.read_text())
    speaker = {"recipe": tree["systems"][0]["recipe"], "set": ["data.sampling=text-speech"]}
    tree["systems"][0] |= {"set": ["data.sampling=image-text"], "then": speaker}
    file.write_text(json.dumps(tree))
    (run,) = load_plan(str(file), tmp_path / "runs").runs
    assert execute(run).figures["img2speech WER"] is not None
    assert json.loads((run.folder / "result.json").read_text())["settings"][1]["data"]["sampling"] == "text-speech"
    written = {json.loads(line)["text"] for line in (run.folder / "eval" / "1-img2speech" / "items.jsonl").open()}
    assert written != {""} and (run.folder / "then" / "latest").is_dir()
    del tree["systems"][0]["then"]
    file.write_text(json.dumps(tree))
    with pytest.raises(UserError, match="is of 2 models, not 1"):
        check_unchanged(load_plan(str(file), tmp_path / "runs").runs[0])
    tree["evaluate"][0] |= {"task": "img2text", "figures": ["BLEU-1"]}
    del tree["evaluate"][0]["transcriber"]
    tree["systems"][0]["then"] = speaker
    file.write_text(json.dumps(tree))
    with pytest.raises(UserError, match="Piecewise: has `then`, so only img2speech can be measured, not img2text"):
        load_plan(str(file), tmp_path / "runs")
    tree["evaluate"][0] |= {"task": "img2speech", "transcriber": f"command:{ears}", "figures": ["WER"]}
    speaker["set"] = ["data.sampling=mix"]
    tree["systems"][0]["then"] = speaker
    file.write_text(json.dumps(tree))
    (other,) = load_plan(str(file), tmp_path / "runs").runs
    with pytest.raises(UserError, match=r"was made with data\.sampling=text-speech"):
        check_unchanged(other)


def test_a_run_that_fails_leaves_the_others_their_turn(sweep, tmp_path):
    file = sweep(seeds=[0], systems=[("bad", ["train.only=[nothing]"]), ("full", [])])
    for jobs in ("1", "2"):
        done = call(file, tmp_path / jobs, "--jobs", jobs)
        assert done.returncode == 1
        assert "bad, seed 0: failed: train.only: no part of the model is 'nothing'" in done.stderr
        assert "full, seed 0: img2text whole" in done.stderr
        assert done.stderr.splitlines()[-1].endswith("1 of 2 runs failed; the same command tries them again")
        assert "| bad | 0 | - |" in done.stdout


def test_a_fault_of_ours_is_one_line_and_a_traceback_in_the_log(sweep, tmp_path, monkeypatch):
    def broken(*args, **options):
        raise MemoryError("no more")

    monkeypatch.setattr(runner, "train", broken)
    (run,) = load_plan(str(sweep(seeds=[0], systems=[("full", [])])), tmp_path / "runs").runs
    ((_, result),) = in_this_process([run])
    assert result.error.startswith("MemoryError: no more (see ")
    assert "Traceback" in (run.folder / "train.log").read_text()


def test_a_log_that_cannot_be_written_does_not_end_the_sweep(sweep, tmp_path, monkeypatch):
    def broken(recipe, folder, resume):
        shutil.rmtree(folder)
        raise MemoryError("no more")

    monkeypatch.setattr(runner, "train", broken)
    (run,) = load_plan(str(sweep(seeds=[0], systems=[("full", [])])), tmp_path / "runs").runs
    ((_, result),) = in_this_process([run])
    assert result.error.startswith("MemoryError: no more")


def test_a_long_error_is_cut_to_what_a_pipe_holds(sweep, tmp_path, monkeypatch):
    def refuse(run):
        raise UserError("x" * 1_000_000)

    monkeypatch.setattr(runner, "execute", refuse)
    (run,) = load_plan(str(sweep(seeds=[0], systems=[("full", [])])), tmp_path / "runs").runs
    assert len(runner.attempt(run).error) == runner.ERROR_CHARACTERS


def test_a_process_that_dies_is_one_line(sweep, tmp_path):
    (run,) = load_plan(str(sweep(seeds=[0], systems=[("full", [])], steps=100_000)), tmp_path / "runs").runs
    results = in_processes([run], 2)
    import threading

    def kill():
        import multiprocessing

        while not (run.folder / "run.json").exists():
            time.sleep(0.05)
        for child in multiprocessing.active_children():
            child.kill()

    threading.Thread(target=kill).start()
    ((_, result),) = results
    assert result.error == "its process ended with status -9"
