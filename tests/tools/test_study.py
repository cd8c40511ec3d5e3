"""A study trains its variants, skips what is finished, and tells what the runs say."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import eval as evaluation
import pytest
import study as study_tool
import train
import yaml

from tests.environment import REPOSITORY, wait_for
from vidtl.training.run_directory import RunDirectory

Tool = Callable[..., tuple[int, str, str]]


@pytest.fixture
def study_file(tmp_path: Path, toy: Path) -> Path:
    experiment = yaml.safe_load((REPOSITORY / "configs/toy.yaml").read_text())
    experiment["data"] |= {"root": str(toy), "num_workers": 0}
    experiment["clip"] |= {"num_frames": 8, "stride": 2, "frame_size": [32, 32], "short_side": 36}
    experiment["model"] |= {"width": 24, "depth": 2, "temporal_depth": 1}
    experiment["training"] |= {"batch_size": 8, "log_every_steps": 1, "evaluate_every_epochs": 0.5}
    experiment["schedule"] = {"length": "1 epoch", "warmup": "0.5 epochs"}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(experiment))
    study = {
        "title": "Tiny",
        "experiment": "tiny.yaml",
        "checkpoint": "best",
        "batch_size": 2,
        "rows": [
            {"name": "none", "options": {"model.token_learner.num_tokens": 0}, "seeds": [0], "published": 0.5},
            {"name": "4 tokens", "options": {"model.token_learner.num_tokens": 4}, "seeds": [0, 1]},
        ],
    }
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study))
    return file


def judged_record(run: Path, name: str = "*/val-center") -> dict[str, Any]:
    (file,) = (run / "judged").glob(f"{name}/metrics.json")
    return json.loads(file.read_text())


@pytest.mark.timeout(900)  # six processes one after the other, each of which imports everything
def test_runs_judges_and_tells(study_file: Path, tmp_path: Path, run_main: Tool) -> None:
    runs, results = tmp_path / "runs", tmp_path / "results"
    options = [study_file, "--output_dir", runs, "--results_dir", results, "--rounds", "1"]
    code, output, errors = run_main(study_tool.main, *options, "--shard", "2/2")
    assert code == 0, errors
    assert "part-2-of-2  finished" in output
    assert sorted(path.name for path in runs.iterdir()) == ["4-tokens"]
    assert not results.exists()

    code, output, errors = run_main(study_tool.main, *options)
    assert code == 0, errors
    told = json.loads((results / "results.json").read_text())
    assert [row["name"] for row in told["rows"]] == ["none", "4 tokens"]
    for row, seeds in zip(told["rows"], ([0], [0, 1]), strict=True):
        judged = {
            str(seed): judged_record(runs / row["name"].replace(" ", "-") / f"seed-{seed}")["metrics"]["top1"]
            for seed in seeds
        }
        assert {seed: run["value"] for seed, run in row["runs"].items()} == judged
        for run in row["runs"].values():
            assert run["interval"]["low"] <= run["value"] <= run["interval"]["high"]
            assert (run["device"], run["precision"], run["finished"]) == ("CPU", "no", told["date"])
        assert row["mean"] == pytest.approx(sum(judged.values()) / len(judged))
    with (results / "results.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert [line["published"] for line in lines] == ["0.5", ""]
    assert told["rows"][0]["multiply_add_ratio"] == 1 > told["rows"][1]["multiply_add_ratio"]
    first, second = told["rows"]
    assert first["clips_per_s_ratio"] == 1 != second["clips_per_s_ratio"] > 0
    for row in told["rows"]:
        assert row["clips_per_s"] is None, "absolute times of a CPU"
        assert 0 <= row["data_wait_share"] <= 1
        assert row["peak_memory_bytes"] > row["step_memory_bytes"] > 4 * row["parameters"]
    assert (results / "study.png").read_bytes()[:4] == b"\x89PNG"
    assert "2/2" in output

    trained = (runs / "none/seed-0/metrics.jsonl").stat().st_mtime_ns
    code, _, errors = run_main(study_tool.main, *options, "--shard", "1/2")
    assert code == 0, errors
    assert (runs / "none/seed-0/metrics.jsonl").stat().st_mtime_ns == trained, "a finished run was started again"

    # Another machine, where the table came along and the folders of the runs did not.
    there = [study_file, "--output_dir", tmp_path / "elsewhere", "--results_dir", results, "--rounds", "1"]
    code, _, errors = run_main(study_tool.main, *there, "--training.precision", "bf16", "--data.num_workers", "1")
    assert code == 0, errors
    again = json.loads((results / "results.json").read_text())
    for before, after in zip(told["rows"], again["rows"], strict=True):
        assert after["runs"] == before["runs"]
        assert (after["mean"], after["clips_per_s_ratio"]) == (before["mean"], None)
    assert not (tmp_path / "elsewhere").exists(), "a run that the table tells of was started again"

    content = yaml.safe_load(study_file.read_text())
    content["rows"][0]["options"] = {"model.token_learner.num_tokens": 8}
    study_file.write_text(yaml.safe_dump(content))
    written = (results / "results.json").read_bytes()
    for where, message in (
        (options, "holds another experiment: model.token_learner.num_tokens is 0 there and 8 here"),
        (there, "'none' was run with model.token_learner.num_tokens 0, which is 8 now; move the file away"),
    ):
        code, _, errors = run_main(study_tool.main, *where)
        assert code == 2, "another experiment's run was taken for a finished one"
        assert message in errors
    assert (results / "results.json").read_bytes() == written


@pytest.mark.timeout(600)
def test_a_run_is_judged_again_where_the_study_asks_for_something_else(
    study_file: Path, tmp_path: Path, run_main: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = {"train.py": train.main, "eval.py": evaluation.main}
    called: list[str] = []

    def call(command: list[str], launch: Path | None) -> None:
        called.append(command[0])
        code, _, errors = run_main(tools[command[0]], *command[1:])
        assert code == 0, errors

    monkeypatch.setattr(study_tool, "call", call)
    runs, run = tmp_path / "runs", tmp_path / "runs/none/seed-0"
    content = yaml.safe_load(study_file.read_text())
    content |= {"checkpoint": "last", "rows": content["rows"][:1]}

    def judge(**change: object) -> float:
        study_file.write_text(yaml.safe_dump(content | change))
        called.clear()
        parsed = study_tool.read_settings(study_file, study_tool.StudyConfig)
        (planned,) = study_tool.planned_runs(parsed, tmp_path / "tiny.yaml", runs)
        study_tool.execute_unfinished([planned], parsed, None)
        return study_tool.read_run(planned.folder, study_tool.metrics_file(planned, parsed), "top1").value

    (run / "judged/val-center").mkdir(parents=True)  # by a version whose figures do not say what they are of
    (run / "judged/val-center/metrics.json").write_text('{"metrics": {"top1": 2}}')
    last = judge()
    assert called == ["train.py", "eval.py"]
    assert judge() == last
    assert called == []
    lines = [line for line in map(json.loads, (run / "metrics.jsonl").open()) if "split" in line]
    for line, top1 in zip(lines, (0.9, 0.1), strict=True):  # the first checkpoint shall be the best one
        line["top1"] = top1
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    judge(checkpoint="best")
    assert called == ["eval.py"]
    assert [judged_record(run, f"step-0000000{step}/val-center")["model"]["step"] for step in (2, 4)] == [2, 4]
    judge(options={"evaluation.max_videos": 3})
    assert called == ["eval.py"]
    assert judged_record(run, "*/val-center-first-3")["num_annotated"] == 3
    assert judge() == last
    assert called == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": []}, "rows is []; allowed: one row or more"),
        ({"metric": "top2"}, "metric"),
        ({"rows": [{"name": "a", "options": {}, "seeds": []}]}, "allowed: one seed or more"),
        (
            {"rows": [{"name": "a", "options": {"model.dept": 1}, "seeds": [0]}]},
            "did you mean 'model.depth'",
        ),
        ({"experiment": "tinny.yaml"}, "did you mean 'tiny.yaml'"),
    ],
)
def test_mistakes_are_told_in_one_line(
    study_file: Path, tmp_path: Path, run_main: Tool, change: dict[str, object], message: str
) -> None:
    study_file.write_text(yaml.safe_dump(yaml.safe_load(study_file.read_text()) | change))
    code, _, errors = run_main(study_tool.main, study_file, "--output_dir", tmp_path / "runs")
    assert code == 2
    assert message in errors
    assert len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_key_that_is_there_twice_is_refused(study_file: Path, tmp_path: Path, run_main: Tool) -> None:
    study_file.write_text(study_file.read_text() + "metric: mAP\nmetric: top1\n")
    code, _, errors = run_main(study_tool.main, study_file, "--output_dir", tmp_path / "runs")
    assert code == 2
    assert "the key 'metric' is there twice" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.rot", "x"], "unknown option --data.rot; did you mean 'data.root'?"),
        (["--result_dir", "x"], "unknown option --result_dir; see --help"),
        (["--training.seed=3"], "--training.seed is given for all runs; allowed: options that neither rows nor seeds"),
        (["--model.token_learner.num_tokens", "8"], "num_tokens is given for all runs"),
    ],
)
def test_options_for_all_runs_leave_the_study_what_it_is(
    study_file: Path, tmp_path: Path, run_main: Tool, options: list[str], message: str
) -> None:
    code, _, errors = run_main(study_tool.main, study_file, "--output_dir", tmp_path / "runs", *options)
    assert code == 2
    assert message in errors
    assert not (tmp_path / "runs").exists()


def test_options_for_all_runs_come_after_those_of_rows(study_file: Path, tmp_path: Path) -> None:
    study = study_tool.read_settings(study_file, study_tool.StudyConfig)
    settings = ["--data.root", "elsewhere", "--training.precision=bf16"]
    runs = list(study_tool.planned_runs(study, tmp_path / "tiny.yaml", tmp_path / "runs", settings))
    assert {(run.config.data.root, run.config.training.precision) for run in runs} == {("elsewhere", "bf16")}
    assert all(run.arguments[-3:] == settings for run in runs)


@pytest.mark.parametrize("options", [["--shard", "3/2"], ["--shard", "1/2", "--table_only"], ["--rounds", "0"]])
def test_impossible_options_start_nothing(study_file: Path, tmp_path: Path, run_main: Tool, options: list[str]) -> None:
    code, _, errors = run_main(study_tool.main, study_file, "--output_dir", tmp_path / "runs", *options)
    assert code == 2
    assert f"{options[0]} " in errors
    assert len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_table_leaves_no_finished_run_out(study_file: Path, tmp_path: Path, run_main: Tool) -> None:
    run = tmp_path / "runs/none/seed-0"
    (run / "judged/val-center").mkdir(parents=True)
    (run / "judged/val-center/metrics.json").write_text("{}")  # of a study that asked for another checkpoint
    (run / "summary.json").write_text(json.dumps({"status": "finished", "results": {"steps": 8}}))
    (run / "metrics.jsonl").write_text(json.dumps({"step": 4, "epoch": 0.5, "split": "val", "top1": 0.5}) + "\n")
    code, _, errors = run_main(study_tool.main, study_file, "--output_dir", tmp_path / "runs", "--table_only")
    assert code == 2
    assert f"1 finished runs are not judged as the study asks, {run} among them; leave --table_only out" in errors
    assert not (tmp_path / "runs/results.json").exists()


@pytest.mark.parametrize("launch", [[], ["--launch", str(REPOSITORY / "configs/accelerate/cpu.yaml")]])
def test_a_signal_stops_the_tool_before_the_study(study_file: Path, tmp_path: Path, launch: list[str]) -> None:
    command = [
        sys.executable,
        str(REPOSITORY / "tools/study.py"),
        str(study_file),
        "--output_dir",
        str(tmp_path / "runs"),
        *launch,
    ]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    run = tmp_path / "runs/none/seed-0"
    wait_for(run / "config.yaml", process)  # from here on the run takes signals
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; the same command goes on from the last checkpoint" in errors
    assert json.loads((run / "summary.json").read_text())["status"].startswith("stopped by SIGTERM")
    with RunDirectory(run).locked():
        pass  # nobody is at work there any more
