"""Whole runs in one process: resuming, logging, evaluating, stopping."""

import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from tests.training.tiny_run import NUM_RECORDS, failing, tiny_config, tiny_model, tiny_task, tiny_train, train_slowly
from vidtl.errors import UserError
from vidtl.runtime.exit import StoppedBySignalError
from vidtl.training.checkpoint import MODEL, OPTIMIZER, checkpoint_step, list_checkpoints, newest_valid
from vidtl.training.run_summary import RunSummary

STEPS = [2, 3, 4, 6, 8, 9, 10, 12]
"""Checkpoints of `tiny_config`: every 2 steps, and after each of 4 epochs of 3 steps where it is evaluated."""


def rising(scores=(0.2, 0.9, 0.4, 0.5)):
    """An evaluation that gives these scores in turn, and draws from torch's generator to disturb training."""
    left = iter(scores)

    def evaluate(model):
        assert not model.training
        torch.rand(5)
        return {"top1": next(left), "loss": float("inf")}

    return evaluate


def lines(output_dir):
    return [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]


SPEED = ("clips_per_s", "data_wait_share", "transfer_share", "compute_share")


def without_speed(entries):
    return [{k: v for k, v in e.items() if k not in SPEED} for e in entries]


def steps_in(output_dir):
    return sorted(checkpoint_step(p) for p in list_checkpoints(output_dir / "checkpoints"))


def same_tensors(one, other):
    for name in (MODEL, OPTIMIZER):
        a, b = load_file(one / name), load_file(other / name)
        if a.keys() != b.keys() or not all(torch.equal(a[k], b[k]) for k in a):
            return False
    return True


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, accelerator):
    output_dir = tmp_path_factory.mktemp("unbroken") / "run"
    summary, _ = tiny_train(output_dir, tiny_config(), accelerator, rising())
    assert summary.steps == 12
    return output_dir, summary


def test_a_run_leaves_what_it_promises(unbroken):
    output_dir, summary = unbroken
    assert steps_in(output_dir) == STEPS
    assert summary.checkpoint == output_dir / "checkpoints" / "step-00000012"
    assert summary.metrics["top1"] == 0.5
    assert (summary.best.metric, summary.best.value, summary.best.step) == ("top1", 0.9, 6)
    entries = lines(output_dir)
    assert [e["step"] for e in entries if "split" not in e] == [2, 4, 6, 8, 10, 12]
    assert [(e["step"], e["top1"], e["loss"]) for e in entries if "split" in e] == [
        (3, 0.2, None),
        (6, 0.9, None),
        (9, 0.4, None),
        (12, 0.5, None),
    ]
    assert entries[0].keys() == {
        "step", "epoch", "loss", "learning_rate", "grad_norm", *SPEED
    }  # fmt: skip
    assert any((output_dir / "tensorboard").iterdir())


def test_training_is_not_disturbed_by_evaluations_or_logs(unbroken, tmp_path, accelerator):
    config = tiny_config(log_every_steps=5, checkpoint_every_steps=12)
    tiny_train(tmp_path, config, accelerator)
    assert steps_in(tmp_path) == [12]
    assert same_tensors(tmp_path / "checkpoints" / "step-00000012", unbroken[1].checkpoint)


@pytest.mark.parametrize("step", STEPS)
def test_resuming_is_bitwise_and_leaves_no_doubles(unbroken, tmp_path, accelerator, step):
    """As if killed some steps after that checkpoint: later checkpoints are gone, later lines of the log are there."""
    output_dir, summary = unbroken
    copy = tmp_path / "run"
    shutil.copytree(output_dir, copy)
    for directory in list_checkpoints(copy / "checkpoints"):
        if checkpoint_step(directory) > step:
            shutil.rmtree(directory)
    with (copy / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 12, "epo')  # torn by the kill
    done = [e for e in lines(output_dir) if "split" in e and e["step"] <= step]
    resumed, model = tiny_train(copy, tiny_config(), accelerator, rising((0.2, 0.9, 0.4, 0.5)[len(done) :]))
    assert (resumed.resumed_step, resumed.steps, resumed.best) == (step, 12, summary.best)
    assert resumed.metrics["top1"] == summary.metrics["top1"]
    assert same_tensors(resumed.checkpoint, summary.checkpoint)
    assert all(torch.equal(v, load_file(summary.checkpoint / MODEL)[k]) for k, v in model.state_dict().items())
    assert steps_in(copy) == STEPS
    assert without_speed(lines(copy)) == without_speed(lines(output_dir))


def test_pruning_spares_what_is_written_below_a_damaged_checkpoint(unbroken, tmp_path, accelerator, caplog):
    copy = tmp_path / "run"
    shutil.copytree(unbroken[0], copy)
    for step in (10, 12):
        (copy / f"checkpoints/step-{step:08d}" / OPTIMIZER).write_bytes(b"damaged")
    task = tiny_task(tiny_config())
    task.loader.spoil = lambda step, batch: os.kill(os.getpid(), signal.SIGTERM) or batch
    with pytest.raises(StoppedBySignalError):  # after step 10, which is written again
        tiny_train(copy, tiny_config(keep_checkpoints=1), accelerator, task=task)
    assert steps_in(copy) == [6, 10]  # 6 is the best
    assert checkpoint_step(newest_valid(copy / "checkpoints")) == 10
    assert (copy / "checkpoints/step-00000012.damaged" / OPTIMIZER).read_bytes() == b"damaged"
    assert "step-00000012.damaged" in caplog.text


def test_an_evaluation_that_was_cut_short_is_done_on_resuming(unbroken, tmp_path, accelerator):
    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_train(tmp_path, tiny_config(), accelerator, interrupted)
    assert steps_in(tmp_path) == [2, 3]
    summary, _ = tiny_train(tmp_path, tiny_config(), accelerator, rising())
    assert without_speed(lines(tmp_path)) == without_speed(lines(unbroken[0]))
    assert same_tensors(summary.checkpoint, unbroken[1].checkpoint)


def test_killed_again_and_again_ends_with_the_same_weights(unbroken, tmp_path):
    # Children of a process that has never trained: autograd and OpenMP do not survive a fork from one that has.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.tiny_run"])
    rng = random.Random(5)
    endings = []
    while 0 not in endings:
        child = context.Process(target=train_slowly, args=(tmp_path, 0.05))
        before = len(list_checkpoints(tmp_path / "checkpoints"))
        child.start()
        if len(endings) < 20:
            while child.is_alive() and not endings and len(list_checkpoints(tmp_path / "checkpoints")) == before:
                time.sleep(0.01)  # the first child also waits for the server's imports
            time.sleep(rng.uniform(0.05, 0.3))
            child.kill()
        child.join()
        endings.append(child.exitcode)
    assert len(endings) > 4
    assert set(endings) == {0, -signal.SIGKILL}
    final = newest_valid(tmp_path / "checkpoints")
    assert same_tensors(final, unbroken[1].checkpoint)
    train = [e["step"] for e in lines(tmp_path)]
    assert train == sorted(set(train))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_stops_after_the_step_with_a_checkpoint(unbroken, tmp_path, accelerator, signum):
    config, task = tiny_config(), tiny_task(tiny_config())

    def raise_signal(step, batch):
        if step == 4:
            os.kill(os.getpid(), signum)
        return batch

    task.loader.spoil = raise_signal
    before = signal.getsignal(signum)
    with pytest.raises(StoppedBySignalError) as stopped:
        tiny_train(tmp_path, config, accelerator, task=task)
    assert stopped.value.signum == signum
    assert signal.getsignal(signum) is before
    assert steps_in(tmp_path) == [2, 4, 5]
    summary, _ = tiny_train(tmp_path, config, accelerator)
    assert summary.resumed_step == 5
    assert same_tensors(summary.checkpoint, unbroken[1].checkpoint)


def test_workers_that_die_of_the_same_signal_lose_no_step(tmp_path, accelerator):
    task = tiny_task(tiny_config())

    def dying(step, batch):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
            raise UserError("a decoding worker failed")
        return batch

    task.loader.spoil = dying
    with pytest.raises(StoppedBySignalError):
        tiny_train(tmp_path, tiny_config(), accelerator, task=task)
    assert steps_in(tmp_path) == [2, 4, 5]


def test_a_signal_during_an_evaluation_stops_at_once(tmp_path, accelerator):
    def evaluate(_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        raise AssertionError("not stopped")

    with pytest.raises(StoppedBySignalError):
        tiny_train(tmp_path, tiny_config(), accelerator, evaluate)
    assert steps_in(tmp_path) == [2, 3]


def test_the_best_checkpoint_survives_pruning(tmp_path, accelerator):
    tiny_train(tmp_path, tiny_config(keep_checkpoints=2), accelerator, rising())
    assert steps_in(tmp_path) == [6, 10, 12]


def test_evaluates_at_the_end_only_where_the_period_is_0(tmp_path, accelerator):
    tiny_train(tmp_path, tiny_config(evaluate_every_epochs=0.0), accelerator, rising())
    assert [e["step"] for e in lines(tmp_path) if "split" in e] == [12]


def test_a_part_of_an_epoch_below_a_step_evaluates_after_each_step(tmp_path, accelerator):
    config = tiny_config(evaluate_every_epochs=0.1, early_stop_evaluations=2)
    summary, _ = tiny_train(tmp_path, config, accelerator, rising((0.2, 0.9, 0.4, 0.5)))
    assert [e["step"] for e in lines(tmp_path) if "split" in e] == [1, 2, 3, 4]
    assert summary.steps == 4


def test_an_early_stop_that_no_evaluation_could_decide_is_refused():
    with pytest.raises(UserError, match=r"early_stop_evaluations is 2; allowed: 0 where training.evaluate_every_ep"):
        tiny_config(evaluate_every_epochs=0.0, early_stop_evaluations=2)


def test_a_loss_that_is_not_finite_names_the_step_and_spares_the_checkpoints(tmp_path, accelerator):
    task = tiny_task(tiny_config())
    task.loader.spoil = lambda step, batch: replace(batch, targets=batch.targets * float("nan")) if step == 6 else batch
    with pytest.raises(UserError, match="the loss is nan in step 7"):
        tiny_train(tmp_path, tiny_config(), accelerator, task=task)
    assert steps_in(tmp_path) == [2, 4, 6]
    assert all(torch.isfinite(v).all() for v in load_file(newest_valid(tmp_path / "checkpoints") / MODEL).values())


@pytest.mark.parametrize("full_at", [0, 4])
def test_a_disk_that_is_full_ends_in_one_error_of_the_user(tmp_path, accelerator, caplog, monkeypatch, full_at):
    """At once, at the first file of the run; or later, when what the run came to cannot be written either."""
    full, real_fsync = [], os.fsync

    def fsync(descriptor):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    full += [True] * (full_at == 0)
    task = tiny_task(tiny_config())
    task.loader.spoil = lambda step, batch: full.append(True) or batch if step == full_at else batch
    with pytest.raises(UserError, match=r"could not be written: .*No space left on device"):
        tiny_train(tmp_path, tiny_config(log_every_steps=1), accelerator, task=task)
    if full_at:
        assert "summary.json could not be written: No space left" in caplog.text


def test_a_finished_run_whose_summary_cannot_be_written_does_not_pass_for_one(tmp_path, accelerator, monkeypatch):
    first, real_write = [], RunSummary._write

    def write(summary):
        if first:
            raise OSError(errno.ENOSPC, "No space left on device")
        first.append(real_write(summary))

    monkeypatch.setattr(RunSummary, "_write", write)
    with pytest.raises(UserError, match=r"summary.json could not be written: No space left on device"):
        tiny_train(tmp_path, tiny_config(), accelerator)


def test_unreadable_videos_are_counted_by_path_and_bounded(tmp_path, accelerator):
    task = tiny_task(tiny_config())
    task.loader.spoil = failing(0.13)  # 1 of 8 videos of each step: below the bound of a fifth
    summary, _ = tiny_train(tmp_path / "few", tiny_config(), accelerator, task=task)
    assert summary.unreadable == {f"videos/{step}-0.mp4": 1 for step in range(12)}
    state = json.loads((summary.checkpoint / "state.json").read_text())
    assert (state["videos_asked"], state["videos_unreadable"]) == (4 * NUM_RECORDS + 12, 12)

    task.loader.spoil = failing(0.5)
    with pytest.raises(UserError, match=r"8 of 24 videos .* data.max_unreadable_share .*videos/1-3.mp4: cut short"):
        tiny_train(tmp_path / "many", tiny_config(), accelerator, task=task)
    listed = [json.loads(line) for line in (tmp_path / "many" / "unreadable.jsonl").read_text().splitlines()]
    assert [(e["step"], e["path"]) for e in listed[:1]] == [(1, "videos/0-0.mp4")]
    assert len(listed) == 8


def test_unreadable_videos_are_not_counted_twice_by_resuming(tmp_path, accelerator):
    task = tiny_task(tiny_config())
    task.loader.spoil = failing(0.13)
    tiny_train(tmp_path, tiny_config(), accelerator, task=task)
    for directory in list_checkpoints(tmp_path / "checkpoints"):
        if checkpoint_step(directory) > 4:
            shutil.rmtree(directory)
    summary, _ = tiny_train(tmp_path, tiny_config(), accelerator, task=task)
    assert summary.resumed_step == 4
    assert sum(summary.unreadable.values()) == 12


def test_another_number_of_classes_is_refused_and_nothing_is_touched(unbroken, tmp_path, accelerator):
    copy = tmp_path / "run"
    shutil.copytree(unbroken[0], copy)
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and p.name != ".lock"}
    task = replace(tiny_task(tiny_config()), num_classes=5)
    with pytest.raises(UserError, match="num_classes is 3, and here it is 5"):
        tiny_train(copy, tiny_config(log_every_steps=7), accelerator, task=task)
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and p.name != ".lock"} == before


@pytest.mark.parametrize(
    ("change", "told"),
    [({"num_videos": 21}, "num_videos is 22, and here it is 21"), ({"data_sha256": "b"}, "or in another order")],
)
def test_other_data_is_refused_and_what_an_old_checkpoint_does_not_know_is_not_compared(
    unbroken, tmp_path, accelerator, change, told
):
    def stopping(task):
        task.loader.spoil = lambda step, batch: os.kill(os.getpid(), signal.SIGTERM) or batch
        return task

    task = replace(tiny_task(tiny_config()), num_videos=22, data_sha256="a")
    with pytest.raises(StoppedBySignalError):
        tiny_train(tmp_path / "run", tiny_config(), accelerator, task=stopping(task))
    with pytest.raises(UserError, match=f"{told}: the data set has changed"):
        tiny_train(tmp_path / "run", tiny_config(), accelerator, task=replace(task, **change))
    old = shutil.copytree(unbroken[0], tmp_path / "old")
    tiny_train(old, tiny_config(), accelerator, task=task)


def test_a_model_of_another_shape_is_refused_in_one_line(unbroken, tmp_path, accelerator):
    copy = tmp_path / "run"
    shutil.copytree(unbroken[0], copy)
    model = tiny_model()
    model.head = torch.nn.Linear(16, 4)
    with pytest.raises(UserError, match="holds another model") as caught:
        tiny_train(copy, tiny_config(), accelerator, model=model)
    assert "\n" not in str(caught.value)


def test_learning_rates_in_the_log_are_the_closed_formula(unbroken):
    """Also across resuming, because `test_resuming_is_bitwise_and_leaves_no_doubles` compares these lines."""
    from math import cos, pi

    for entry in (e for e in lines(unbroken[0]) if "split" not in e):
        step = entry["step"] - 1
        expected = 0.05 * min(1, step / 3) * (1 + cos(pi * max(0, step - 3) / 9)) / 2
        assert entry["learning_rate"] == pytest.approx(expected, abs=1e-15)
