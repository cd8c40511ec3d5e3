"""Whole runs in one process: resuming, logging, evaluating, stopping."""

import errno
import itertools
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from importlib.metadata import version

import pytest
import torch
from safetensors.torch import load_file

from tests.refusals import refused
from tests.training.runs import are_equal, checkpoint_of, cut_back, log_lines, saved_steps
from tests.training.tiny_run import (
    NUM_RECORDS,
    failing,
    tiny_config,
    tiny_model,
    tiny_task,
    tiny_train,
    train_slowly,
    train_until_killed,
)
from vidtl.errors import UserError
from vidtl.runtime.signals import StoppedBySignalError
from vidtl.training import run_directory
from vidtl.training.checkpoint import MODEL, OPTIMIZER, checkpoint_step, list_checkpoints, newest_valid

STEPS = [2, 3, 4, 6, 8, 9, 10, 12]
"""Checkpoints of `tiny_config`: every 2 steps, and after each of 4 epochs of 3 steps where it is evaluated."""
SPEED = ("clips_per_s", "data_wait_share", "transfer_share", "compute_share")


def rising(scores=(0.2, 0.9, 0.4, 0.5)):
    """An evaluation that gives these scores in turn, and draws from torch's generator to disturb training."""
    left = iter(scores)

    def evaluate(model):
        assert not model.training
        torch.rand(5)
        return {"top1": next(left), "other": 0.0, "loss": math.inf}

    return evaluate


def without_speed(folder):
    return [{k: v for k, v in line.items() if k not in SPEED} for line in log_lines(folder)]


def at_step(wanted, action):
    """A task that calls `action` before it reads the batch of that step."""
    task = tiny_task(tiny_config())
    task.loader.spoil = lambda step, batch: (action() if step == wanted else None) or batch
    return task


def terminate(signum=signal.SIGTERM):
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
    assert training[0].keys() == {"step", "epoch", "loss", "learning_rate", "grad_norm", *SPEED}
    assert [e["step"] for e in training] == [2, 4, 6, 8, 10, 12]
    for step, rate in ((e["step"] - 1, e["learning_rate"]) for e in training):
        expected = 0.05 * min(1, step / 3) * (1 + math.cos(math.pi * max(0, step - 3) / 9)) / 2
        assert rate == pytest.approx(expected, abs=1e-15)
    assert any((output_dir / "tensorboard").iterdir())


def test_training_is_not_disturbed_by_evaluations_or_logs(unbroken, tmp_path, accelerator):
    tiny_train(tmp_path, tiny_config(log_every_steps=5, checkpoint_every_steps=12), accelerator)
    assert saved_steps(tmp_path) == [12]
    assert are_equal(checkpoint_of(tmp_path, 12), unbroken[1].checkpoint)


@pytest.mark.parametrize("step", STEPS)
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


def test_damaged_checkpoints_do_not_count_as_the_newest(unbroken, tmp_path, accelerator, caplog):
    copy = shutil.copytree(unbroken[0], tmp_path / "run")
    for step in (10, 12):
        (checkpoint_of(copy, step) / OPTIMIZER).write_bytes(b"damaged")
    with pytest.raises(StoppedBySignalError):  # after step 10, which is written again
        tiny_train(copy, tiny_config(keep_checkpoints=1), accelerator, task=at_step(9, terminate))
    assert saved_steps(copy) == [6, 10]  # 6 is the best
    assert checkpoint_step(newest_valid(copy / "checkpoints")) == 10
    assert (copy / "checkpoints/step-00000012.damaged" / OPTIMIZER).read_bytes() == b"damaged"
    assert "step-00000012.damaged" in caplog.text


def test_an_interrupted_evaluation_is_repeated_on_resuming(unbroken, tmp_path, accelerator):
    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_train(tmp_path, tiny_config(), accelerator, interrupted)
    assert saved_steps(tmp_path) == [2, 3]
    summary, _ = tiny_train(tmp_path, tiny_config(), accelerator, rising())
    assert without_speed(tmp_path) == without_speed(unbroken[0])
    assert are_equal(summary.checkpoint, unbroken[1].checkpoint)


def test_killed_again_and_again_ends_with_the_same_weights(unbroken, tmp_path):
    # Children of a process that has never trained: autograd and OpenMP do not survive a fork from one that has.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.tiny_run"])
    rng, endings = random.Random(5), []
    while 0 not in endings:
        child = context.Process(target=train_slowly, args=(tmp_path, 0.05))
        before = len(list_checkpoints(tmp_path / "checkpoints"))
        child.start()
        if len(endings) < 8:
            while child.is_alive() and not endings and len(list_checkpoints(tmp_path / "checkpoints")) == before:
                time.sleep(0.01)  # the first child also waits for the server's imports
            time.sleep(rng.uniform(0.05, 0.3))
            child.kill()
        child.join()
        endings.append(child.exitcode)
    assert len(endings) > 3
    assert set(endings) == {0, -signal.SIGKILL}
    assert are_equal(newest_valid(tmp_path / "checkpoints"), unbroken[1].checkpoint)
    steps = [e["step"] for e in log_lines(tmp_path)]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_stops_after_the_step_with_a_checkpoint(unbroken, tmp_path, accelerator, signum):
    before = signal.getsignal(signum)
    with pytest.raises(StoppedBySignalError) as stopped:
        tiny_train(tmp_path, tiny_config(), accelerator, task=at_step(4, lambda: terminate(signum)))
    assert stopped.value.signum == signum
    assert signal.getsignal(signum) is before
    assert saved_steps(tmp_path) == [2, 4, 5]
    summary, _ = tiny_train(tmp_path, tiny_config(), accelerator)
    assert summary.resumed_step == 5
    assert are_equal(summary.checkpoint, unbroken[1].checkpoint)


def test_workers_that_die_of_the_same_signal_lose_no_step(tmp_path, accelerator):
    def die():
        terminate()
        raise UserError("a decoding worker failed")

    with pytest.raises(StoppedBySignalError):
        tiny_train(tmp_path, tiny_config(), accelerator, task=at_step(5, die))
    assert saved_steps(tmp_path) == [2, 4, 5]


def test_a_signal_during_an_evaluation_stops_at_once(tmp_path, accelerator):
    def evaluate(_):
        terminate()
        time.sleep(30)
        raise AssertionError("not stopped")

    with pytest.raises(StoppedBySignalError):
        tiny_train(tmp_path, tiny_config(), accelerator, evaluate)
    assert saved_steps(tmp_path) == [2, 3]


@pytest.mark.parametrize(
    ("options", "evaluated", "saved"),
    [
        ({"keep_checkpoints": 2}, [3, 6, 9, 12], [6, 10, 12]),  # the best, 6, survives
        ({"evaluate_every_epochs": 0.0, "checkpoint_every_steps": 12}, [12], [12]),
        ({"evaluate_every_epochs": 0.1, "early_stop_evaluations": 2}, [1, 2, 3, 4], [1, 2, 3, 4]),  # at least a step
    ],
)
def test_evaluations_and_checkpoints_come_when_they_are_due(tmp_path, accelerator, options, evaluated, saved):
    tiny_train(tmp_path, tiny_config(**options), accelerator, rising())
    assert [e["step"] for e in log_lines(tmp_path) if "split" in e] == evaluated
    assert saved_steps(tmp_path) == saved


def scoring(scores):
    left = iter(scores)
    return lambda model: {"top1": 0.1, "f1_macro": next(left)}


def test_early_stop_ends_after_evaluations_without_improvement_of_the_best_metric(tmp_path, accelerator):
    options = {"early_stop_evaluations": 2, "best_metric": "f1_macro"}
    config, scores = tiny_config(**options), [0.5, 0.4, 0.5]
    summary, _ = tiny_train(tmp_path / "run", config, accelerator, scoring(scores))
    assert (summary.steps, summary.best.metric, summary.best.step) == (9, "f1_macro", 3)
    for step in (3, 4, 6, 8):  # at the same step after a resume
        copy = cut_back(tmp_path / "run", tmp_path / str(step), step)
        resumed, _ = tiny_train(copy, config, accelerator, scoring(scores[step // 3 :]))
        assert (resumed.resumed_step, resumed.steps) == (step, 9)
    again, _ = tiny_train(tmp_path / "run", config, accelerator, scoring([]))  # nothing left to do
    assert (again.steps, again.resumed_step) == (9, 9)
    more = tiny_config(**{**options, "early_stop_evaluations": 3})
    further, _ = tiny_train(tmp_path / "run", more, accelerator, scoring([0.9]))
    assert (further.steps, further.best.step) == (12, 12)


def test_an_unknown_best_metric_is_refused_with_the_nearest(tmp_path, accelerator):
    with refused("training.best_metric", "'topp1'", "'top1'"):
        tiny_train(tmp_path, tiny_config(best_metric="topp1"), accelerator, rising())


def test_an_early_stop_without_evaluations_is_refused():
    with refused("training.early_stop_evaluations is 2", "training.evaluate_every_epochs"):
        tiny_config(evaluate_every_epochs=0.0, early_stop_evaluations=2)


def test_a_non_finite_loss_names_the_step_and_spares_the_checkpoints(tmp_path, accelerator):
    task = tiny_task(tiny_config())
    task.loader.spoil = lambda step, batch: replace(batch, targets=batch.targets * math.nan) if step == 6 else batch
    with refused("loss is nan", "step 7", "optimizer.learning_rate"):
        tiny_train(tmp_path, tiny_config(), accelerator, task=task)
    assert saved_steps(tmp_path) == [2, 4, 6]
    assert all(torch.isfinite(v).all() for v in load_file(newest_valid(tmp_path / "checkpoints") / MODEL).values())


class NormModel(torch.nn.Module):
    """Its running statistics move in the forward pass, before the loss is known."""

    def __init__(self):
        super().__init__()
        self.tiny = tiny_model()
        torch.manual_seed(4)
        self.norm = torch.nn.BatchNorm1d(3)

    def forward(self, input_BTCHW):
        return self.norm(self.tiny(input_BTCHW))


def nan_pixels(steps):
    """A task whose input is NaN in these steps."""
    task, current = tiny_task(tiny_config()), [0]

    def spoil(step, batch):
        current[0] = step
        return batch

    def make_input(batch):
        inputs, targets = task_make_input(batch)
        return (inputs * math.nan if current[0] in steps else inputs), targets

    task_make_input = task.make_input
    task.loader.spoil = spoil
    return replace(task, make_input=make_input)


def test_a_skipped_step_changes_nothing_and_is_counted(tmp_path, accelerator):
    folder, config = tmp_path / "run", tiny_config(nonfinite="skip", checkpoint_every_steps=1, ema_decay=0.9)
    summary, _ = tiny_train(folder, config, accelerator, task=nan_pixels({4, 5, 9}), model=NormModel())
    equal = [are_equal(checkpoint_of(folder, step), checkpoint_of(folder, step + 1)) for step in range(1, 12)]
    assert [step for step, same in enumerate(equal, start=1) if same] == [4, 5, 9]
    assert all(torch.isfinite(value).all() for value in load_file(checkpoint_of(folder, 12) / MODEL).values())
    state = json.loads((summary.checkpoint / "state.json").read_text())
    assert (state["nonfinite_steps"], state["nonfinite_in_a_row"]) == (3, 0)
    assert [line.get("nonfinite_steps") for line in log_lines(folder)] == [None, None, 2, 2, 3, 3]
    assert [line["loss"] is None for line in log_lines(folder)] == [False, False, True, False, False, False]
    resumed = cut_back(folder, tmp_path / "resumed", 5)  # between two skipped steps
    tiny_train(resumed, config, accelerator, task=nan_pixels({4, 5, 9}), model=NormModel())
    assert are_equal(checkpoint_of(resumed, 12), checkpoint_of(folder, 12))


def test_too_many_skipped_steps_in_a_row_end_the_run(tmp_path, accelerator, monkeypatch):
    monkeypatch.setattr("vidtl.training.monitor.MAX_NONFINITE_STEPS", 2)
    config = tiny_config(nonfinite="skip")
    with refused("loss is nan", "step 7", "2 before it"):
        tiny_train(tmp_path, config, accelerator, task=nan_pixels({4, 5, 6}))
    summary, _ = tiny_train(tmp_path, config, accelerator)  # without the trouble it resumes
    assert summary.steps == 12


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_a_step_that_overflows_in_fp16_changes_nothing(tmp_path, accelerator, monkeypatch, fused):
    """Under this scale the norm of the gradient overflows in float32, as fp16 does under the usual one."""
    monkeypatch.setattr(accelerator, "scaler", torch.amp.GradScaler("cpu", init_scale=2.0**70))
    monkeypatch.setattr("vidtl.training.optimizer._FUSED_DEVICES", {"cpu"} if fused else set())
    config = tiny_config(checkpoint_every_steps=1, ema_decay=0.9)
    config = replace(config, optimizer=replace(config.optimizer, clip_norm=0.0))
    tiny_train(tmp_path, config, accelerator, model=NormModel())
    scales = [json.loads((checkpoint_of(tmp_path, step) / "state.json").read_text())["scaler"]["scale"]
              for step in range(1, 13)]  # fmt: skip
    skipped = [later < earlier for earlier, later in itertools.pairwise(scales)]
    assert 0 < sum(skipped) < 10
    for step, was_skipped in enumerate(skipped, start=1):
        assert are_equal(checkpoint_of(tmp_path, step), checkpoint_of(tmp_path, step + 1)) == was_skipped


@pytest.mark.parametrize("full_at", [0, 4])
def test_a_full_disk_ends_the_run_in_one_line(tmp_path, accelerator, caplog, monkeypatch, full_at):
    """At the first file of the run, or later, when the summary cannot be written either."""
    full, real_fsync = [True] * (full_at == 0), os.fsync

    def fsync(descriptor):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    task = at_step(full_at or -1, lambda: full.append(True))
    with refused("could not be written", "No space left on device"):
        tiny_train(tmp_path, tiny_config(log_every_steps=1), accelerator, task=task)
    assert ("summary.json could not be written" in caplog.text) == bool(full_at)


def test_a_finished_run_whose_summary_cannot_be_written_is_an_error(tmp_path, accelerator, monkeypatch):
    first, real_write = [], run_directory._write

    def write(file, content):
        if first:
            raise UserError(f"{file} could not be written: No space left on device")
        first.append(real_write(file, content))

    monkeypatch.setattr(run_directory, "_write", write)
    with refused("summary.json", "No space left on device"):
        tiny_train(tmp_path, tiny_config(), accelerator)


def test_unreadable_videos_are_counted_limited_and_resumed(tmp_path, accelerator):
    task = tiny_task(tiny_config())
    task.loader.spoil = failing(0.13)  # 1 of 8 videos of each step: below the limit of a fifth
    summary, _ = tiny_train(tmp_path / "few", tiny_config(), accelerator, task=task)
    assert summary.unreadable == {f"videos/{step}-0.mp4": 1 for step in range(12)}
    state = json.loads((summary.checkpoint / "state.json").read_text())
    assert (state["videos_asked"], state["videos_unreadable"]) == (4 * NUM_RECORDS + 12, 12)
    resumed, _ = tiny_train(cut_back(tmp_path / "few", tmp_path / "resumed", 4), tiny_config(), accelerator, task=task)
    assert (resumed.resumed_step, sum(resumed.unreadable.values())) == (4, 12)

    task.loader.spoil = failing(0.5)
    with refused("8 of 24", "data.max_unreadable_share", "0.2", "videos/1-3.mp4: cut short"):
        tiny_train(tmp_path / "many", tiny_config(), accelerator, task=task)
    listed = [json.loads(line) for line in (tmp_path / "many" / "unreadable.jsonl").read_text().splitlines()]
    assert (listed[0]["step"], listed[0]["path"], len(listed)) == (1, "videos/0-0.mp4", 8)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"num_classes": 5}, ("num_classes", "3", "5")),
        ({"num_videos": 21}, ("num_videos", "22", "21")),
        ({"data_sha256": "b"}, ("data_sha256", "'a'", "'b'")),
    ],
)
def test_other_data_is_refused_and_nothing_changes(tmp_path, accelerator, change, parts):
    stopping = replace(at_step(0, terminate), num_videos=22, data_sha256="a")
    with pytest.raises(StoppedBySignalError):
        tiny_train(tmp_path, tiny_config(), accelerator, task=stopping)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"}
    task = replace(tiny_task(tiny_config()), num_videos=22, data_sha256="a")
    with refused(*parts):
        tiny_train(tmp_path, tiny_config(log_every_steps=7), accelerator, task=replace(task, **change))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"} == before


def test_a_model_of_another_shape_is_refused(unbroken, tmp_path, accelerator):
    model = tiny_model()
    model.head = torch.nn.Linear(16, 4)
    with refused("step-00000012", "another model"):
        tiny_train(shutil.copytree(unbroken[0], tmp_path / "run"), tiny_config(), accelerator, model=model)


def test_the_summary_describes_the_run_and_its_results(tmp_path, accelerator):
    seen = []

    def look():
        seen.append(json.loads((tmp_path / "summary.json").read_text()))
        raise ValueError("a mistake of ours")

    task = replace(at_step(5, look), about={"model": {"parameters": 7}})
    with pytest.raises(ValueError, match="of ours"):
        tiny_train(tmp_path, tiny_config(), accelerator, task=task)
    (running,) = seen
    assert running["status"] == "running"
    assert running["versions"]["torch"] == version("torch")
    assert (running["hardware"]["processes"], running["hardware"]["precision"]) == (1, "fp32")
    assert running["config"]["training"]["seed"] == 0
    assert running["model"] == {"parameters": 7}
    failed = json.loads((tmp_path / "summary.json").read_text())
    assert failed["status"] == "failed: ValueError: a mistake of ours"
    assert failed["attempts"][0]["last_step"] == 5

    # A child of a process that has never trained: autograd does not survive a fork from one that has.
    child = multiprocessing.get_context("forkserver").Process(target=train_until_killed, args=(tmp_path, 7))
    child.start()
    child.join()
    assert child.exitcode == 9
    tiny_train(tmp_path, tiny_config(), accelerator, rising([0.1, 0.2, math.nan]))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [attempt["status"].split(":")[0] for attempt in summary["attempts"]] == ["failed", "killed", "finished"]
    assert [attempt["first_step"] for attempt in summary["attempts"]] == [0, 4, 6]
    peaks = [attempt["peak_memory_bytes"] for attempt in summary["attempts"]]
    assert peaks[1] is None  # of a killed process
    assert peaks[2] == {"gpu": None, "process": pytest.approx(run_directory._peak_memory()["process"], rel=0.3)}
    assert summary["results"]["best"] == {"metric": "top1", "value": 0.2, "step": 9}
    assert summary["results"]["metrics"]["top1"] is None
    assert run_directory.git_state(tmp_path / "nowhere") is None
