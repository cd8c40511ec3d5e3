"""W&B without a network: what is logged lies in the run's own folder, and a resumed run keeps its identity."""

import json
import sys
import time

import pytest
from accelerate import PartialState

from vidtl.errors import UserError
from vidtl.runtime.logging import MetricsLog
from vidtl.runtime.trackers import check_trackers, start_trackers


def logged(folder, resumed_step, steps):
    PartialState()  # which every tool has by then
    trackers = start_trackers(["wandb"], folder, {"training": {"seed": 3}}, resumed_step)
    run = trackers[0].tracker
    log = MetricsLog(folder / "metrics.jsonl", trackers, resumed_step)
    for step in steps:
        log.write(step, step / 4, {"loss": 1 / step})
    log.close()
    return run.id


def content_of(file):
    """W&B writes from a process of its own, which a busy machine may leave behind."""
    deadline = time.monotonic() + 60
    while b"training/loss" not in (content := file.read_bytes()):
        assert time.monotonic() < deadline, content
        time.sleep(0.1)
    return content


def test_wandb_offline_goes_on_under_the_same_name(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra 'wandb' is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = tmp_path / "run"
    folder.mkdir()
    first = logged(folder, 0, [1, 2])
    time.sleep(1.1)  # W&B names its folders by the second
    assert logged(folder, 2, [3, 4]) == first
    files = sorted((folder / "wandb").glob(f"offline-run-*-{first}/*.wandb"))
    for file, losses in zip(files, ([b"1.0", b"0.5"], [b"0.3333", b"0.25"]), strict=True):
        content = content_of(file)
        assert all(loss in content for loss in losses)
    assert [json.loads(line)["step"] for line in (folder / "metrics.jsonl").open()] == [1, 2, 3, 4]


def test_a_tracker_that_is_not_installed_is_said_at_the_start(monkeypatch):
    check_trackers(["tensorboard"])
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"'wandb', which is not installed; try: pip install vidtl\[wandb\]"):
        check_trackers(["tensorboard", "wandb"])
