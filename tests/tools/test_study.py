"""Studies: training and evaluation of the rows, continuation, table and figure."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from functools import partial, reduce
from operator import getitem
from pathlib import Path
from typing import Any

import eval as evaluation
import pytest
import study as study_tool
import study_table
import torch
import train
import yaml
from command_line import ExperimentParser, parse_experiment
from matplotlib.figure import Figure
from study_table import RowResult, StudyConfig, StudyRow, deciding_settings, read_result

from tests.environment import REPOSITORY, wait_for
from tests.refusals import assert_refusal, refused
from vidtl import visualize
from vidtl.annotations.description import load_description
from vidtl.config import ExperimentConfig
from vidtl.config.load import load
from vidtl.data.protocols import protocol_of_run
from vidtl.errors import UserError
from vidtl.evaluation.provenance import folder_name
from vidtl.models import build_model
from vidtl.models.complexity import count_parameters
from vidtl.training.run_directory import RunDirectory

STUDIES = sorted((REPOSITORY / "configs/studies").glob("*.yaml"))
TOKENS = "model.token_learner.num_tokens"
make_result = partial(RowResult, parameters=1, multiply_adds=1)


@pytest.fixture
def study_file(tmp_path, toy):
    experiment = yaml.safe_load((REPOSITORY / "configs/toy.yaml").read_text())
    experiment["data"] |= {"root": str(toy), "num_workers": 0}
    experiment["clip"] |= {"num_frames": 8, "stride": 2, "frame_size": [32, 32], "short_side": 36}
    experiment["model"] |= {"width": 24, "depth": 2, "temporal_depth": 1}
    experiment["training"] |= {"batch_size": 8, "log_every_steps": 1, "evaluate_every_epochs": 0.5}
    experiment["schedule"] = {"length": "1 epoch", "warmup": "0.5 epochs"}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(experiment))
    rows = [
        {"name": "none", "options": {TOKENS: 0}, "seeds": [0], "published": 0.5},
        {"name": "4 tokens", "options": {TOKENS: 4}, "seeds": [0, 1]},
    ]
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({"title": "Tiny", "experiment": "tiny.yaml", "checkpoint": "best", "rows": rows}))
    return file


@pytest.fixture
def run(study_file, tmp_path, run_main):
    return partial(run_main, study_tool.main, study_file, "--output_dir", tmp_path / "runs")


def change_file(study_file, **change):
    study_file.write_text(yaml.safe_dump(yaml.safe_load(study_file.read_text()) | change))


@pytest.fixture
def calls(monkeypatch):
    """Names of the tools called: stubs that write the files the study reads; top1 is 0.5 + seed / 10."""
    called: list[str] = []

    def call(command, launch):
        name, *arguments, _, output_dir = command
        folder = Path(output_dir)
        called.append(name)
        if name == "eval.py":
            del arguments[(place := arguments.index("--checkpoint")) : place + 2]
        _, config = parse_experiment(ExperimentParser("", ""), arguments)
        if name == "train.py":
            hardware = {"device": "Xeon", "device_memory_bytes": None, "precision": "bf16"}
            results = {"steps": 4, "best": {"metric": "top1", "value": 0.9, "step": 2}}
            attempts = [{"ended": None}, {"ended": "2026-11-21T23:59:59+00:00"}]
            content = {"status": "finished", "results": results, "hardware": hardware, "attempts": attempts}
            content |= {"config": asdict(config), "versions": {"torch": "2.11.0"}}
            write_json(RunDirectory(folder).summary_file, content)
        else:
            protocol = protocol_of_run(config.evaluation.protocol, load_description(config.data.dataset).protocol)
            metrics = {"top1": 0.5 + config.training.seed / 10, "mAP": None}
            intervals = {"top1": {"low": 0.4, "high": 0.7}}
            target = folder / folder_name(config, protocol) / "metrics.json"
            write_json(target, {"metrics": metrics, "intervals": intervals})

    monkeypatch.setattr(study_tool, "call", call)
    return called


def write_json(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def test_a_run_that_fails_takes_no_other(run, calls, tmp_path, monkeypatch):
    stub = study_tool.call

    def call(command, launch):
        if "none" in command[-1]:
            raise UserError("no memory")
        stub(command, launch)

    monkeypatch.setattr(study_tool, "call", call)
    run(refused=["none, seed 0", "1 of 3", "--table_only"])
    assert calls == ["train.py", "eval.py"] * 2


@pytest.mark.timeout(600)
def test_a_row(study_file, tmp_path, run_main, run, monkeypatch):
    tools = {"train.py": train.main, "eval.py": evaluation.main}

    called = []

    def call(command, launch):
        called.append(command[0])
        run_main(tools[command[0]], *command[1:])

    row = {"name": "4 tokens", "options": {TOKENS: 4, "model.token_learner.elastic": True}, "seeds": [0]}
    rows = json.loads(json.dumps([row, row | {"name": "2 tokens", "tokens": 2}]))  # of one run; YAML has no aliases
    change_file(study_file, rows=rows, metric="mean_class_accuracy")
    study = load(study_file, StudyConfig)
    runs = list(study_tool.planned_runs(study, tmp_path / "tiny.yaml", tmp_path / "runs"))
    monkeypatch.setattr(study_tool, "call", call)
    study_tool.execute_unfinished(runs, study, None)
    output, _ = run("--table_only")
    assert called == ["train.py", "eval.py", "eval.py"]
    row, fewer = json.loads((tmp_path / "runs/results.json").read_text())["rows"]
    (file,) = (tmp_path / "runs/4-tokens/seed-0/judged").glob("*/val-center-tokens-2/metrics.json")
    assert fewer["mean"] == json.loads(file.read_text())["metrics"]["mean_class_accuracy"]
    assert fewer["multiply_adds"] < row["multiply_adds"]
    (file,) = (tmp_path / "runs/4-tokens/seed-0/judged").glob("*/val-center/metrics.json")
    judged, result = json.loads(file.read_text()), row["runs"]["0"]
    assert result["value"] == row["mean"] == judged["metrics"]["mean_class_accuracy"]
    assert (result["device"], result["precision"]) == ("CPU", "fp32")
    assert f"step-{judged['model']['step']:08d}" == file.parts[-3]
    assert "4 tokens" in output


def test_table_shards_and_reuse_of_results(study_file, tmp_path, run, calls):
    runs, results = tmp_path / "runs", tmp_path / "results"

    def succeed(*more):
        calls.clear()
        output, _ = run("--results_dir", results, *map(str, more))
        return output

    assert "part-2-of-2" in succeed("--shard", "2/2")
    assert [path.name for path in runs.iterdir()] == ["4-tokens"]
    assert not results.exists()
    assert "2/2" in succeed()
    assert calls == ["train.py", "eval.py"] * 2
    table = json.loads((results / "results.json").read_text())
    first, second = table["rows"]
    assert (first["mean"], first["deviation"], first["published"]) == (0.5, None, 0.5)
    assert (second["mean"], second["deviation"]) == pytest.approx((0.55, 0.1 / 2**0.5))
    assert first["multiply_add_ratio"] == 1 > second["multiply_add_ratio"]
    facts = {"device": "CPU", "precision": "bf16", "torch": "2.11.0", "finished": "2026-11-21"}
    assert second["runs"]["1"] == {"value": 0.6, "interval": {"low": 0.4, "high": 0.7}, **facts}
    assert [line["published"] for line in csv.DictReader((results / "results.csv").open())] == ["0.5", ""]
    assert (results / "study.png").read_bytes()[:4] == b"\x89PNG"
    succeed()
    assert calls == [], "finished runs were started again"

    shutil.rmtree(runs)  # as on another machine, where only the table is
    succeed("--training.precision", "bf16", "--data.num_workers", "1")
    assert calls == []
    assert not runs.exists()
    again = json.loads((results / "results.json").read_text())
    assert again["rows"] == table["rows"]

    rows = yaml.safe_load(study_file.read_text())["rows"]
    change_file(study_file, rows=[rows[0] | {"options": {TOKENS: 8}}, rows[1]])
    written = (results / "results.json").read_bytes()
    _, errors = run("--results_dir", results, code=2)
    assert_refusal(errors, results / "results.json", "none", TOKENS, 0, 8)
    assert (results / "results.json").read_bytes() == written


def test_a_folder_with_a_run_of_another_experiment_is_refused(tmp_path, run, calls):
    file = tmp_path / "runs/none/seed-0/config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("model: {vivit: {token_learner: {num_tokens: 3}}}")
    _, errors = run(code=2)
    assert calls == []
    assert_refusal(errors, file)


def test_repeated_evaluation(study_file, tmp_path, run, calls):
    rows = yaml.safe_load(study_file.read_text())["rows"][:1]

    def evaluated(**change):
        change_file(study_file, rows=rows, **change)
        calls.clear()
        run()
        return calls

    assert evaluated(checkpoint="last") == ["train.py", "eval.py"]
    assert evaluated() == []
    assert evaluated(checkpoint="best") == ["eval.py"]
    judged = tmp_path / "runs/none/seed-0/judged"
    assert sorted(path.name for path in judged.iterdir()) == ["step-00000002", "step-00000004"]
    assert evaluated(options={"evaluation.max_videos": 3}) == ["eval.py"]
    assert (judged / "step-00000002/val-center-first-3").is_dir()
    change_file(study_file, options={"evaluation.max_videos": 2})
    _, errors = run("--table_only", code=2)
    assert_refusal(errors, judged.parent, "--table_only")
    (tmp_path / "runs/results.json").unlink()  # of the shorter run
    assert evaluated(options={"schedule.length": "99 epochs"}) == ["train.py", "eval.py"]  # it goes on


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A study, its experiments by row and seed, and the table of its results."""
    folder = tmp_path_factory.mktemp("study")
    rows = [StudyRow(name=name, options={TOKENS: n}, seeds=[0]) for name, n in (("none", 0), ("4 tokens", 4))]
    study = StudyConfig(title="", experiment=str(REPOSITORY / "configs/toy.yaml"), rows=rows)
    runs = {run.key: run for run in study_tool.planned_runs(study, Path(study.experiment), folder)}
    result = dict.fromkeys(study_table.RUN_KEYS, 0.5)
    made = [make_result(row=run.row, config=run.config, runs={0: result}) for run in runs.values()]
    study_table.write_table(study, made, folder / "results.json")
    return study, {key: run.config for key, run in runs.items()}, folder / "results.json"


@pytest.mark.parametrize(
    ("keys", "value", "parts"),
    [
        (["metric"], "mAP", ["metric", "mAP", "top1"]),
        (["checkpoint"], "best", ["checkpoint", "last", "best"]),
        (["rows", 0, "name"], "tall", ["tall", "seed 0"]),
        (["rows", 1, "runs", "7"], dict.fromkeys(study_table.RUN_KEYS), ["4 tokens", "seed 7"]),
        (["settings", "clip.stride"], 9, ["none", "clip.stride", 9]),
        (["rows", 1, "settings"], {}, ["4 tokens", TOKENS, 0, 4]),
        (["settings", "data.eval_split"], "train", ["data.eval_split", "train", "val"]),
        (["settings", "evaluation.max_videos"], 9, ["evaluation.max_videos", 9, 0]),
        (["settings"], "lost", []),
        (["rows", 0, "runs", "0"], {"value": 0.5}, []),
        (["rows"], 3, []),
        ([], [], []),
    ],
)
def test_results_that_would_be_lost_are_refused(planned, tmp_path, keys, value, parts):
    study, configs, table = planned
    assert study_table.recorded_results(table, study, configs, []).keys() == configs.keys()
    content: Any = {"": json.loads(table.read_text())}
    *path, last = ["", *keys]
    reduce(getitem, path, content)[last] = value
    file = tmp_path / "results.json"
    write_json(file, content[""])
    with refused(file, "--results_dir", *parts):
        study_table.recorded_results(file, study, configs, [])


@pytest.mark.parametrize(("metric", "parts"), [("mAP", ["mAP"]), ("topp1", ["topp1", "top1"])])
def test_metrics_without_a_value_are_refused(tmp_path, metric, parts):
    write_json(tmp_path / "metrics.json", {"metrics": {"top1": 0.5, "mAP": None}})
    write_json(tmp_path / "summary.json", {})
    with refused(tmp_path / "metrics.json", *parts):
        read_result(tmp_path / "summary.json", tmp_path / "metrics.json", metric)


@pytest.mark.parametrize(
    ("change", "options", "parts"),
    [
        ({"rows": []}, [], ["rows", "[]"]),
        ({"rows": [{"name": "a", "options": {}, "seeds": []}]}, [], ["rows.0.seeds"]),
        ({"rows": [{"name": n, "options": {}, "seeds": [0]} for n in ("a b", "a-b")]}, [], ["rows.name"]),
        ({"rows": [{"name": "a", "options": {"model.dept": 1}, "seeds": [0]}]}, [], ["model.depth"]),
        ({"experiment": "tinny.yaml"}, [], ["tinny.yaml", "tiny.yaml"]),
        ({"checkpoint": "first"}, [], ["checkpoint", "first"]),
        ({"metrik": "top1"}, [], ["metrik"]),
        ({"judged_on": "vla"}, [], ["'vla'", "'val'"]),
        ({}, ["--data.roott", "x"], ["--data.roott", "data.root"]),
        ({}, ["--result_dir", "x"], ["--result_dir"]),
        ({}, ["--training.seed=3"], ["--training.seed"]),
        ({}, [f"--{TOKENS}", "8"], [TOKENS]),
        ({}, ["--shard", "3/2"], ["--shard", "3/2"]),
        ({}, ["--shard", "1/2", "--table_only"], ["--table_only", "--shard"]),
    ],
)
def test_mistakes(study_file, tmp_path, run, change, options, parts):
    change_file(study_file, **change)
    _, errors = run(*options, code=2)
    assert_refusal(errors, *parts)
    assert not (tmp_path / "runs").exists()


def test_options_for_all_runs_override_those_of_the_study(study_file, tmp_path):
    change_file(study_file, options={"data.root": "here", "training.compile": "blocks"})
    study = load(study_file, StudyConfig)
    runs = study_tool.planned_runs(study, tmp_path / "tiny.yaml", tmp_path / "runs", ["--data.root", "there"])
    assert {(run.config.data.root, run.config.training.compile) for run in runs} == {("there", "blocks")}


def test_a_signal_stops_launched_processes_before_the_study(study_file, tmp_path):
    command = [sys.executable, str(REPOSITORY / "tools/study.py"), str(study_file)]
    command += ["--output_dir", str(tmp_path / "runs"), "--launch", str(REPOSITORY / "configs/accelerate/cpu.yaml")]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    run = tmp_path / "runs/none/seed-0"
    wait_for(run / "config.yaml", process)  # from here on the run takes signals
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM
    assert "SIGTERM" in errors
    assert "SIGTERM" in json.loads((run / "summary.json").read_text())["status"]
    with RunDirectory(run).locked():
        pass  # no process holds the run any more


def test_the_exit_code_of_a_subprocess():
    assert study_tool.run_to_end([sys.executable, "-c", "raise SystemExit(3)"]) == 3


def test_rows_of_the_figure_differ_in_marker_or_color(monkeypatch):
    drawn: list[Figure] = []
    monkeypatch.setattr(visualize, "save_figure", lambda figure, path: drawn.append(figure))
    rows = [StudyRow(name=f"row {n}", options={}, seeds=[0, 1], published=0.4) for n in range(13)]
    study = StudyConfig(title="title", experiment="x.yaml", rows=rows)
    runs: list[dict[int, Any]] = [{0: {"value": 0.5}}, {}]
    made = [make_result(row=row, config=ExperimentConfig(), runs=runs[n % 2]) for n, row in enumerate(rows)]
    study_table.draw_table(study, made, Path("unused.png"))
    handles, labels = drawn[0].axes[0].get_legend_handles_labels()
    assert labels == [f"row {n} ({(n + 1) % 2})" for n in range(13)] + ["published"]
    assert len({(handle.get_marker(), handle.get_color()) for handle in handles}) == 14


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_rows_of_committed_studies_differ_and_build(file, tmp_path):
    study = load(file, StudyConfig)
    runs = list(study_tool.planned_runs(study, file.parent / study.experiment, tmp_path))
    assert len(runs) == sum(len(row.seeds) for row in study.rows)
    firsts = [next(run.config for run in runs if run.row is row) for row in study.rows]
    rows = [(config, row.tokens) for config, row in zip(firsts, study.rows, strict=True)]
    assert all(one != other for number, one in enumerate(rows) for other in rows[:number])
    with torch.device("meta"):
        assert all(count_parameters(build_model(config.model, config.clip, 8)) > 0 for config in firsts)
    if file.stem == "cifar10_token_learner":
        settings = {run.row.name: deciding_settings(run.config) for run in runs}
        t2t, patches = settings["T2T tokenizer, v1 8 tokens"], settings["v1 8 tokens"]
        assert [key for key in t2t if t2t[key] != patches[key]] == ["model.tokenizer"]
