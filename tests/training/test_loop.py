"""Whole runs in one process: resuming, logging, evaluating, stopping."""

import errno
import json
import math
import os
import shutil
import signal
import time
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file

from tests.refusals import refused
from tests.training.runs import are_equal, checkpoint_of, cut_back, log_lines, saved_steps
from tests.training.tiny_run import NUM_RECORDS, norm_model, tiny_config, tiny_model, tiny_task, tiny_train
from vidtl.config import ScheduleConfig
from vidtl.data.batch import Failure
from vidtl.errors import UserError
from vidtl.runtime.signals import StoppedBySignalError
from vidtl.training import run_directory
from vidtl.training.checkpoint_directory import MODEL, OPTIMIZER, checkpoint_step, newest_valid
from vidtl.training.optimizer import learning_rate_of

STEPS = [2, 3, 4, 6, 8, 9, 10, 12]
"""Checkpoints of `tiny_config`: every 2 steps, and after each of 4 epochs of 3 steps where it is evaluated."""
SPEED = {"clips_per_s", "data_wait_share", "transfer_share", "compute_share"}


def rising(scores=(0.2, 0.9, 0.4, 0.5)):
    """Make an evaluation with these scores in turn, which draws from torch's generator to disturb training."""
    left = iter(scores)

    def evaluate(model):
        assert not model.training
        torch.rand(5)
        return {"top1": next(left), "other": 0.0, "loss": math.inf}

    return evaluate


def without_speed(folder):
    return [{k: v for k, v in line.items() if k not in SPEED} for line in log_lines(folder)]


def at_step(wanted, action):
    """Make a task that calls `action` before it reads the batch of these steps; a result replaces the batch."""
    task = tiny_task(tiny_config())
    task.loader.spoil = lambda step, batch: (action(batch) if step in wanted else None) or batch
    return task


def read_json(file):
    return json.loads(file.read_text())


def terminate(_=None, signum=signal.SIGTERM):
    os.kill(os.getpid(), signum)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, accelerator):
    output_dir = tmp_path_factory.mktemp("unbroken") / "run"
    summary, _ = tiny_train(output_dir, tiny_config(), accelerator, rising())
    assert summary.steps == 12
    return output_dir, summary


def test_a_run_leaves_checkpoints_metrics_and_trackers(unbroken):
    output_dir, summary = unbroken
    assert saved_steps(output_dir) == STEPS
    assert summary.checkpoint == checkpoint_of(output_dir, 12)
    assert summary.metrics["top1"] == 0.5
    assert (summary.best.metric, summary.best.value, summary.best.step) == ("top1", 0.9, 6)
    training = [e for e in log_lines(output_dir) if "split" not in e]
    evaluations = [(e["step"], e["top1"], e["loss"]) for e in log_lines(output_dir) if "split" in e]
    assert evaluations == [(3, 0.2, None), (6, 0.9, None), (9, 0.4, None), (12, 0.5, None)]
    assert [e.get("best") for e in log_lines(output_dir) if "split" in e] == ["top1", "top1", None, None]
    assert training[0].keys() == {"step", "epoch", "loss", "accuracy", "learning_rate", "grad_norm", *SPEED}
    rate = learning_rate_of(tiny_config().schedule, 0.05, 3, NUM_RECORDS)
    assert [(e["step"], e["learning_rate"]) for e in training] == [(step, rate(step - 1)) for step in range(2, 13, 2)]
    assert any((output_dir / "tensorboard").iterdir())


def test_training_is_not_disturbed_by_evaluations_or_logs(unbroken, tmp_path, accelerator):
    tiny_train(tmp_path, tiny_config(log_every_steps=5, checkpoint_every_steps=12), accelerator)
    assert saved_steps(tmp_path) == [12]
    assert are_equal(checkpoint_of(tmp_path, 12), unbroken[1].checkpoint)


@pytest.mark.parametrize("step", [2, 3, 8, 12])
def test_resuming_is_bitwise_and_repeats_no_line(unbroken, tmp_path, accelerator, step):
    """As if killed some steps after that checkpoint: later checkpoints are gone, later lines of the log are there."""
    output_dir, summary = unbroken
    copy = cut_back(output_dir, tmp_path / "run", step)
    with (copy / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 12, "epo')  # torn by the kill
    done = [e for e in log_lines(output_dir) if "split" in e and e["step"] <= step]
    resumed, model = tiny_train(copy, tiny_config(), accelerator, rising((0.2, 0.9, 0.4, 0.5)[len(done) :]))
    assert (resumed.resumed_step, resumed.steps, resumed.best) == (step, 12, summary.best)
    assert resumed.metrics["top1"] == summary.metrics["top1"]
    assert are_equal(resumed.checkpoint, summary.checkpoint)
    assert all(torch.equal(v, load_file(summary.checkpoint / MODEL)[k]) for k, v in model.state_dict().items())
    assert saved_steps(copy) == STEPS
    assert without_speed(copy) == without_speed(output_dir)


def test_lines_say_where_a_run_resumes_and_what_evaluations_find(unbroken, tmp_path, accelerator, caplog):
    """Another metric decides anew, also about evaluations before the resume."""
    copy = cut_back(unbroken[0], tmp_path / "run", 8)
    caplog.set_level("INFO")
    scores = iter([{"top1": 0.25, "top5": math.nan, "loss": 0.5}, {"top1": 0.5, "loss": 0.75}])
    resumed, _ = tiny_train(copy, tiny_config(best_metric="loss"), accelerator, lambda _: next(scores))
    assert [line.partition("run/")[2] or line for line in caplog.messages] == [
        "checkpoints/step-00000008: step 8 of 12, 4 left",
        "epoch 3  step 9  val loss 0.500 (best)  top-1 25.0",
        "epoch 4  step 12  val loss 0.750  top-1 50.0",
    ]
    assert (resumed.best.metric, resumed.best.step) == ("loss", 9)


MILESTONES = {"name": "step", "milestones": ("2 epochs", "11 steps")}


@pytest.mark.parametrize("reached", [12, 8])  # finished, and killed before the end
@pytest.mark.parametrize("schedule", [{"name": "constant"}, MILESTONES, {"name": "cosine"}], ids=str)
def test_a_run_goes_on_with_a_longer_schedule(tmp_path, accelerator, schedule, reached):
    shorter = ScheduleConfig(length="4 epochs", warmup="4 steps", **schedule)
    config = replace(tiny_config(ema_decay=0.9), schedule=shorter)
    longer = replace(config, schedule=replace(config.schedule, length="6.0 epochs"))
    tiny_train(tmp_path / "short", config, accelerator)
    run = cut_back(tmp_path / "short", tmp_path / "run", reached)
    further, _ = tiny_train(run, longer, accelerator)
    whole, _ = tiny_train(tmp_path / "whole", longer, accelerator)
    assert (further.resumed_step, further.steps, whole.steps) == (reached, 18, 18)
    assert are_equal(further.checkpoint, whole.checkpoint) is (schedule["name"] != "cosine")
    rates = [{e["step"]: e["learning_rate"] for e in log_lines(folder)} for folder in (run, tmp_path / "whole")]
    assert all(rates[0][step] == rates[1][step] for step in range(reached + 2, 19, 2))
    with refused("schedule.length", "'6.0 epochs'", "'4 epochs'"):
        tiny_train(run, config, accelerator)


def test_damaged_checkpoints_do_not_count_as_the_newest(unbroken, tmp_path, accelerator, caplog):
    copy = shutil.copytree(unbroken[0], tmp_path / "run")
    for step in (10, 12):
        (checkpoint_of(copy, step) / OPTIMIZER).write_bytes(b"damaged")
    with pytest.raises(StoppedBySignalError):  # after step 10, which is written again
        tiny_train(copy, tiny_config(keep_checkpoints=1), accelerator, task=at_step([9], terminate))
    assert saved_steps(copy) == [6, 10]  # 6 is the best
    assert checkpoint_step(newest_valid(copy / "checkpoints")) == 10
    assert (copy / "checkpoints/step-00000012.damaged" / OPTIMIZER).read_bytes() == b"damaged"
    assert "step-00000012.damaged" in caplog.text


@pytest.mark.parametrize(
    ("interrupt", "error"),
    [(lambda: 1 / 0, ZeroDivisionError), (lambda: (terminate(), time.sleep(30)), StoppedBySignalError)],
)
def test_an_interrupted_evaluation_ends_at_once_and_is_repeated(unbroken, tmp_path, accelerator, interrupt, error):
    with pytest.raises(error):
        tiny_train(tmp_path, tiny_config(), accelerator, lambda _: interrupt())
    assert saved_steps(tmp_path) == [2, 3]
    summary, _ = tiny_train(tmp_path, tiny_config(), accelerator, rising())
    assert without_speed(tmp_path) == without_speed(unbroken[0])
    assert are_equal(summary.checkpoint, unbroken[1].checkpoint)


def end_like_the_workers(_):
    terminate()
    raise UserError("a decoding worker failed")


@pytest.mark.parametrize(
    ("step", "signum", "action"),
    [(5, signal.SIGTERM, end_like_the_workers)]
    + [(4, each, partial(terminate, signum=each)) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)],
)
def test_a_signal_stops_after_the_step_with_a_checkpoint(unbroken, tmp_path, accelerator, step, signum, action):
    with pytest.raises(StoppedBySignalError) as stopped:
        tiny_train(tmp_path, tiny_config(), accelerator, task=at_step([step], action))
    assert stopped.value.signum == signum
    assert saved_steps(tmp_path) == [2, 4, 5]
    summary, _ = tiny_train(tmp_path, tiny_config(), accelerator)
    assert summary.resumed_step == 5
    assert are_equal(summary.checkpoint, unbroken[1].checkpoint)


@pytest.mark.parametrize(
    ("options", "evaluated", "saved"),
    [
        ({"keep_checkpoints": 2}, [3, 6, 9, 12], [6, 10, 12]),  # the best, 6, survives
        ({"evaluate_every_epochs": 0.0, "checkpoint_every_steps": 12}, [12], [12]),
        ({"evaluate_every_epochs": 0.1, "early_stop_evaluations": 2}, [1, 2, 3, 4], [1, 2, 3, 4]),  # at least a step
    ],
)
def test_evaluations_and_checkpoints_at_their_steps(tmp_path, accelerator, options, evaluated, saved):
    tiny_train(tmp_path, tiny_config(**options), accelerator, rising())
    assert [e["step"] for e in log_lines(tmp_path) if "split" in e] == evaluated
    assert saved_steps(tmp_path) == saved


@pytest.mark.parametrize(
    ("metric", "scores", "better"), [("f1_macro", [0.5, 0.4, 0.5], 0.9), ("ece", [0.5, 0.6, 0.5], 0.1)]
)
def test_early_stop_after_evaluations_without_a_better_metric(tmp_path, accelerator, metric, scores, better, caplog):
    def train(folder, scores, patience=2):
        caplog.set_level("INFO")
        caplog.clear()
        left = iter(scores)
        config = tiny_config(early_stop_evaluations=patience, best_metric=metric)
        return tiny_train(folder, config, accelerator, lambda _: {"top1": 0.1, metric: next(left)})[0]

    run = train(tmp_path / "run", scores)
    assert (run.steps, run.best.metric, run.best.step) == (9, metric, 3)
    for step in (3, 8):  # at the same step after a resume
        resumed = train(cut_back(tmp_path / "run", tmp_path / str(step), step), scores[step // 3 :])
        assert (resumed.resumed_step, resumed.steps) == (step, 9)
    again = train(tmp_path / "run", [])  # nothing left to do
    assert (again.steps, again.resumed_step) == (9, 9)
    assert any("early_stop_evaluations" in line for line in caplog.messages)
    further = train(tmp_path / "run", [better], patience=3)
    assert (further.steps, further.best.step) == (12, 12)


@pytest.mark.parametrize(
    ("name", "multi_label", "parts"),
    [("topp1", False, ["'topp1'", "'top1'"]), ("mAP", False, ["single", "f1_macro"]), ("top1", True, ["multi", "mAP"])],
)
def test_a_best_metric_that_does_not_fit_is_refused_before_the_run(tmp_path, accelerator, name, multi_label, parts):
    task = replace(tiny_task(tiny_config()), multi_label=multi_label)
    with refused("training.best_metric", *parts):
        tiny_train(tmp_path / "run", tiny_config(best_metric=name), accelerator, rising(), task=task)
    assert not (tmp_path / "run").exists()


def are_finite(checkpoint):
    return all(value.isfinite().all() for value in load_file(checkpoint / MODEL).values())


def unchanged(folder):
    return [step for step in range(1, 12) if are_equal(checkpoint_of(folder, step), checkpoint_of(folder, step + 1))]


def nan_targets(*steps):
    return at_step(steps, lambda batch: replace(batch, targets=batch.targets * math.nan))


def test_a_skipped_step_changes_nothing_and_is_counted(tmp_path, accelerator):
    folder, config = tmp_path / "run", tiny_config(nonfinite="skip", checkpoint_every_steps=1, ema_decay=0.9)
    summary, _ = tiny_train(folder, config, accelerator, task=nan_targets(4, 5, 9), model=norm_model())
    assert unchanged(folder) == [4, 5, 9]
    assert are_finite(summary.checkpoint)
    state = read_json(summary.checkpoint / "state.json")
    assert (state["nonfinite_steps"], state["nonfinite_in_a_row"]) == (3, 0)
    assert [line.get("nonfinite_steps") for line in log_lines(folder)] == [None, None, 2, 2, 3, 3]
    assert [line["loss"] is None for line in log_lines(folder)] == [False, False, True, False, False, False]
    resumed = cut_back(folder, tmp_path / "resumed", 5)  # between two skipped steps
    tiny_train(resumed, config, accelerator, task=nan_targets(4, 5, 9), model=norm_model())
    assert are_equal(checkpoint_of(resumed, 12), checkpoint_of(folder, 12))


@pytest.mark.parametrize(
    ("nonfinite", "steps", "part"), [("stop", [6], "optimizer.learning_rate"), ("skip", [4, 5, 6], "2 before it")]
)
def test_non_finite_losses_spare_the_checkpoints(tmp_path, accelerator, monkeypatch, nonfinite, steps, part):
    monkeypatch.setattr("vidtl.training.monitor.MAX_NONFINITE_STEPS", 2)
    config = tiny_config(nonfinite=nonfinite)
    with refused("loss is nan", "step 7", part):
        tiny_train(tmp_path, config, accelerator, task=nan_targets(*steps))
    assert saved_steps(tmp_path) == [2, 4, 6]
    assert are_finite(newest_valid(tmp_path / "checkpoints"))
    assert tiny_train(tmp_path, config, accelerator)[0].steps == 12


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_a_step_that_overflows_in_fp16_changes_nothing(tmp_path, accelerator, monkeypatch, fused):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**70)  # overflows in float32, as fp16 does with usual scales
    monkeypatch.setattr(accelerator, "scaler", scaler)
    monkeypatch.setattr("vidtl.training.optimizer._FUSED_DEVICES", {"cpu"} if fused else set())
    config = tiny_config(checkpoint_every_steps=1, ema_decay=0.9)
    config = replace(config, optimizer=replace(config.optimizer, clip_norm=0.0))
    tiny_train(tmp_path, config, accelerator, model=norm_model())
    scales = [read_json(checkpoint_of(tmp_path, step) / "state.json")["scaler"]["scale"] for step in range(1, 13)]
    skipped = [step for step in range(1, 12) if scales[step] < scales[step - 1]]
    assert 0 < len(skipped) < 10
    assert unchanged(tmp_path) == skipped


@pytest.mark.parametrize("full_at", [0, 4])
def test_a_full_disk_is_refused_in_one_line(tmp_path, accelerator, caplog, monkeypatch, full_at):
    """Fill the disk at the first file of the run, or later, when the summary cannot be written either."""

    def fill(_=None):
        monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))

    task = at_step([full_at], fill) if full_at else fill()
    with refused("could not be written", "No space left on device"):
        tiny_train(tmp_path, tiny_config(log_every_steps=1), accelerator, task=task)
    assert ("summary.json could not be written" in caplog.text) == bool(full_at)


def test_unreadable_videos_are_counted_limited_and_resumed(tmp_path, accelerator):
    def fail(step, batch):
        bad = [Failure(i, f"videos/{step}-{i}.mp4", "cut short", ("swimming",)) for i in range(count)]
        return replace(batch, failures=bad)

    task, count = tiny_task(tiny_config()), 1  # of 8 videos of each step: below the limit of a fifth
    task.loader.spoil = fail
    summary, _ = tiny_train(tmp_path / "few", tiny_config(), accelerator, task=task)
    assert summary.unreadable == {f"videos/{step}-0.mp4": 1 for step in range(12)}
    state = read_json(summary.checkpoint / "state.json")
    assert (state["videos_asked"], state["videos_unreadable"]) == (4 * NUM_RECORDS, 12)
    resumed, _ = tiny_train(cut_back(tmp_path / "few", tmp_path / "resumed", 4), tiny_config(), accelerator, task=task)
    assert (resumed.resumed_step, sum(resumed.unreadable.values())) == (4, 12)

    count = 4
    with refused("32 of 60", "data.max_unreadable_share", "0.2", "videos/7-3.mp4: cut short"):
        tiny_train(tmp_path / "many", tiny_config(), accelerator, task=task)
    assert len((tmp_path / "many/unreadable.jsonl").read_text().splitlines()) == 32


def test_other_data_and_a_model_of_another_shape_are_refused(unbroken, tmp_path, accelerator):
    facts = {"num_classes": 3, "num_videos": 22, "data_sha256": "a"}
    with pytest.raises(StoppedBySignalError):
        tiny_train(tmp_path, tiny_config(), accelerator, task=replace(at_step([0], terminate), **facts))
    for name, other in (("num_classes", 5), ("num_videos", 21), ("data_sha256", "b")):
        task = replace(tiny_task(tiny_config()), **{**facts, name: other})
        with refused(name, repr(facts[name]), repr(other)):
            tiny_train(tmp_path, tiny_config(log_every_steps=7), accelerator, task=task)
        assert "log_every_steps: 2" in (tmp_path / "config.yaml").read_text()
    model = tiny_model()
    model.head = torch.nn.Linear(16, 4)
    with refused("step-00000012", "another model"):
        tiny_train(shutil.copytree(unbroken[0], tmp_path / "run"), tiny_config(), accelerator, model=model)


def test_the_summary_describes_the_run_and_its_results(tmp_path, accelerator):
    seen, file = [], tmp_path / "summary.json"
    task = replace(at_step([5], lambda _: seen.append(read_json(file)) or 1 / 0), about={"model": {"parameters": 7}})
    with pytest.raises(ZeroDivisionError):
        tiny_train(tmp_path, tiny_config(), accelerator, task=task)
    (running,) = seen
    assert (running["status"], running["versions"]["torch"]) == ("running", version("torch"))
    assert (running["hardware"]["processes"], running["hardware"]["precision"]) == (1, "fp32")
    assert (running["config"]["training"]["seed"], running["model"]) == (0, {"parameters": 7})
    failed = read_json(file)
    assert failed["status"] == "failed: ZeroDivisionError: division by zero"
    assert failed["attempts"][0]["last_step"] == 5

    file.write_text(json.dumps(running))  # as a killed run leaves it
    tiny_train(tmp_path, tiny_config(), accelerator, rising([0.1, 0.2, math.nan]))
    summary = read_json(file)
    attempts = [(a["status"], a["first_step"], a["peak_memory_bytes"]) for a in summary["attempts"]]
    peak = {"gpu": None, "process": pytest.approx(run_directory._peak_memory()["process"], rel=0.3)}
    assert attempts == [("killed", 0, None), ("finished", 4, peak)]
    assert summary["results"]["best"] == {"metric": "top1", "value": 0.2, "step": 9}
    assert summary["results"]["metrics"]["top1"] is None
    assert run_directory.git_state(tmp_path / "nowhere") is None
