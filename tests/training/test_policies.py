"""What a run does on its own: leave out a step, stop early, save by the clock, say what it was."""

import itertools
import json
import multiprocessing
import shutil
import time
from dataclasses import replace
from importlib.metadata import version

import pytest
import torch
from safetensors.torch import load_file

from tests.training.tiny_run import tiny_config, tiny_model, tiny_task, tiny_train, train_until_killed
from vidtl.errors import UserError
from vidtl.runtime.resident_memory import peak_resident_bytes
from vidtl.training.checkpoint import EMA, MODEL, OPTIMIZER, checkpoint_step, list_checkpoints
from vidtl.training.run_summary import git_state


def steps_in(folder):
    return sorted(checkpoint_step(path) for path in list_checkpoints(folder / "checkpoints"))


def tensors(folder, step):
    checkpoint = folder / "checkpoints" / f"step-{step:08d}"
    files = [name for name in (MODEL, OPTIMIZER, f"{EMA}/{MODEL}") if (checkpoint / name).exists()]
    return {f"{file}:{name}": value for file in files for name, value in load_file(checkpoint / file).items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class NormModel(torch.nn.Module):
    """Its running statistics move in the forward pass, before anything is known of the loss."""

    def __init__(self):
        super().__init__()
        self.tiny = tiny_model()
        self.norm = torch.nn.BatchNorm1d(3)

    def forward(self, input_BTCHW):
        return self.norm(self.tiny(input_BTCHW))


def nan_pixels(steps):
    """A task whose input is NaN in these steps."""
    task = tiny_task(tiny_config())
    current = [0]

    def spoil(step, batch):
        current[0] = step
        return batch

    def make_input(batch):
        inputs, targets = task_make_input(batch)
        return (inputs * float("nan") if current[0] in steps else inputs), targets

    task_make_input = task.make_input
    task.loader.spoil = spoil
    return replace(task, make_input=make_input)


def norm_model():
    torch.manual_seed(4)
    return NormModel()


def test_a_skipped_step_leaves_everything_as_it_was_and_is_counted(tmp_path, accelerator):
    config = tiny_config(nonfinite="skip", checkpoint_every_steps=1, ema_decay=0.9)
    summary, _ = tiny_train(tmp_path, config, accelerator, task=nan_pixels({4, 5, 9}), model=norm_model())
    assert summary.steps == 12
    assert same(tensors(tmp_path, 4), tensors(tmp_path, 5))
    assert same(tensors(tmp_path, 5), tensors(tmp_path, 6))
    assert not same(tensors(tmp_path, 6), tensors(tmp_path, 7))
    assert all(torch.isfinite(value).all() for value in tensors(tmp_path, 12).values())
    state = json.loads((summary.checkpoint / "state.json").read_text())
    assert (state["nonfinite_steps"], state["nonfinite_in_a_row"]) == (3, 0)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("nonfinite_steps") for line in lines] == [None, None, 2, 2, 3, 3]
    assert [line["loss"] is None for line in lines] == [False, False, True, False, False, False]

    broken = tmp_path / "broken"
    shutil.copytree(tmp_path, broken, ignore=shutil.ignore_patterns("broken"))
    for directory in list_checkpoints(broken / "checkpoints"):
        if checkpoint_step(directory) > 5:  # between two skipped steps
            shutil.rmtree(directory)
    tiny_train(broken, config, accelerator, task=nan_pixels({4, 5, 9}), model=norm_model())
    assert same(tensors(broken, 12), tensors(tmp_path, 12))


def test_too_many_skipped_steps_in_a_row_end_the_run(tmp_path, accelerator):
    config = tiny_config(nonfinite="skip", max_nonfinite_steps=2)
    with pytest.raises(UserError, match="the loss is nan in step 7, as in the 2 before it"):
        tiny_train(tmp_path, config, accelerator, task=nan_pixels({4, 5, 6}))
    summary, _ = tiny_train(tmp_path, config, accelerator)  # without the trouble it goes on
    assert summary.steps == 12


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_a_step_that_overflows_in_fp16_leaves_everything_as_it_was(tmp_path, accelerator, monkeypatch, fused):
    """Under this scale the norm of the gradient overflows in float32, as fp16 does under the usual one."""
    monkeypatch.setattr(accelerator, "scaler", torch.amp.GradScaler("cpu", init_scale=2.0**70))
    monkeypatch.setattr("vidtl.training.optimizer._FUSED_DEVICES", {"cpu"} if fused else set())
    config = tiny_config(checkpoint_every_steps=1, ema_decay=0.9)
    config = replace(config, optimizer=replace(config.optimizer, clip_norm=0.0))
    tiny_train(tmp_path, config, accelerator, model=norm_model())
    scales = [json.loads((folder / "state.json").read_text())["scaler"]["scale"]
              for folder in list_checkpoints(tmp_path / "checkpoints")]  # fmt: skip
    assert steps_in(tmp_path) == list(range(1, 13))
    skipped = [later < earlier for earlier, later in itertools.pairwise(sorted(scales, reverse=True))]
    assert 0 < sum(skipped) < 10
    for step, left_out in enumerate(skipped, start=1):
        assert same(tensors(tmp_path, step), tensors(tmp_path, step + 1)) == left_out


def scoring(scores):
    left = iter(scores)
    return lambda model: {"top1": next(left)}


def test_early_stop_ends_after_evaluations_that_were_no_better(tmp_path, accelerator):
    config = tiny_config(early_stop_evaluations=2)
    summary, _ = tiny_train(tmp_path, config, accelerator, scoring([0.5, 0.4, 0.5]))
    assert (summary.steps, summary.best.step) == (9, 3)
    again, _ = tiny_train(tmp_path, config, accelerator, scoring([]))  # nothing left to do
    assert (again.steps, again.resumed_step) == (9, 9)
    further, _ = tiny_train(tmp_path, tiny_config(early_stop_evaluations=3), accelerator, scoring([0.9]))
    assert (further.steps, further.best.step) == (12, 12)


@pytest.mark.parametrize("step", [3, 4, 6, 8])
def test_early_stop_comes_at_the_same_step_after_a_resume(tmp_path, accelerator, step):
    config, scores = tiny_config(early_stop_evaluations=2), [0.5, 0.4, 0.5]
    tiny_train(tmp_path, config, accelerator, scoring(scores))
    for directory in list_checkpoints(tmp_path / "checkpoints"):
        if checkpoint_step(directory) > step:
            shutil.rmtree(directory)
    summary, _ = tiny_train(tmp_path, config, accelerator, scoring(scores[step // 3 :]))
    assert (summary.resumed_step, summary.steps) == (step, 9)


def test_checkpoints_by_the_clock(tmp_path, accelerator):
    task = tiny_task(tiny_config())

    def slow(step, batch):
        if step in (3, 7):
            time.sleep(0.5)
        return batch

    task.loader.spoil = slow
    config = tiny_config(checkpoint_every_steps=1000, checkpoint_every_minutes=0.4 / 60)
    tiny_train(tmp_path, config, accelerator, task=task)
    assert {4, 8, 12} <= set(steps_in(tmp_path))
    assert len(steps_in(tmp_path)) < 12


def test_the_summary_says_what_the_run_was_and_what_it_came_to(tmp_path, accelerator):
    task = tiny_task(tiny_config())
    seen = []

    def look(step, batch):
        if step == 5:
            seen.append(json.loads((tmp_path / "summary.json").read_text()))
            raise ValueError("a mistake of ours")
        return batch

    task.loader.spoil = look
    with pytest.raises(ValueError, match="of ours"):
        tiny_train(tmp_path, tiny_config(), accelerator, task=replace(task, about={"model": {"parameters": 7}}))
    (running,) = seen
    assert running["status"] == "running"
    assert running["versions"]["torch"] == version("torch")
    assert running["hardware"]["processes"] == 1
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
    tiny_train(tmp_path, tiny_config(), accelerator, scoring([0.1, 0.2, float("nan")]))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [attempt["status"].split(":")[0] for attempt in summary["attempts"]] == ["failed", "killed", "finished"]
    assert [attempt["first_step"] for attempt in summary["attempts"]] == [0, 4, 6]
    peaks = [attempt["peak_memory_bytes"] for attempt in summary["attempts"]]
    assert peaks[1] is None, "a killed process cannot tell"
    assert peaks[2] == {"gpu": None, "process": pytest.approx(peak_resident_bytes(), rel=0.3)}
    assert summary["results"]["best"] == {"metric": "top1", "value": 0.2, "step": 9}
    assert summary["results"]["metrics"] == {"top1": None}


def test_the_state_of_the_code_is_that_of_its_repository(tmp_path):
    assert git_state(tmp_path / "nowhere") is None
