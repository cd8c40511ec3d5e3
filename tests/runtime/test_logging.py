"""`metrics.jsonl`, trackers, and messages."""

import io
import logging
import sys
import time

import pytest
from accelerate import PartialState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.refusals import refused
from vidtl.runtime import logging as module
from vidtl.runtime.logging import MetricsLog, configure_logging, drop_lines_beyond, read_json_lines, start_trackers
from vidtl.runtime.progress import Progress


def write(folder, names, steps, resumed_step=0):
    trackers = start_trackers(names, folder, {"training": {"seed": 3}}, resumed_step)
    log = MetricsLog(folder / "metrics.jsonl", trackers, resumed_step)
    for step in steps:
        log.write(step, step / 10, {"loss": 1 / step})
    identity = getattr(trackers[0].tracker, "id", None)
    log.close()
    return identity


def test_a_resumed_log_has_each_step_once(tmp_path):
    write(tmp_path, ["tensorboard"], range(1, 9))
    time.sleep(1.1)  # files are read in the order of their names: second, process, number in it (10 before 9)
    write(tmp_path, ["tensorboard"], range(5, 11), resumed_step=4)
    assert [e["step"] for e in read_json_lines(tmp_path / "metrics.jsonl")] == list(range(1, 11))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("training/loss")
    assert [(e.step, round(e.value, 4)) for e in events] == [(s, round(1 / s, 4)) for s in range(1, 11)]


def test_torn_and_strange_lines_are_left_out(tmp_path):
    file = tmp_path / "metrics.jsonl"
    drop_lines_beyond(file, 1)
    assert not file.exists()
    file.write_bytes(b'{"step": 1}\n[2]\n{"step": "x"}\n\xff\xfe\n{"step": 2}\n{"step": 3, "lo')
    assert list(read_json_lines(file)) == [{"step": 1}, {"step": 2}]
    drop_lines_beyond(file, 1)
    assert file.read_text() == '{"step": 1}\n'
    assert list(tmp_path.iterdir()) == [file]


@pytest.fixture
def logger():
    logger = logging.getLogger("vidtl")
    before = logger.handlers, logger.propagate, logger.level
    yield logging.getLogger("vidtl.somewhere")
    logger.handlers, logger.propagate, logger.level = before


def test_messages_cannot_control_the_terminal_and_other_processes_report_errors_only(logger, capsys):
    for is_main_process in (True, False):
        configure_logging(is_main_process)
        logger.warning("video %s", "a\x1b[2Jb\x9bc")
        logger.error("broken")
    assert capsys.readouterr().err == "WARNING: video a\\x1b[2Jb\\x9bc\nERROR: broken\nERROR: broken\n"


def test_messages_stay_above_the_bar(logger, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    configure_logging(is_main_process=True)
    with Progress().task("training", "steps", 10) as task:
        task.update(3)
        logger.info("epoch 1")
        rows = [row.rpartition("\r")[2] for row in terminal.getvalue().split("\n")]  # the last text of a row is seen
        assert rows[0] == "epoch 1"
        assert rows[1].startswith("training: ")


def test_wandb_offline_resumes_under_the_same_id(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra 'wandb' is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    PartialState()
    first = write(tmp_path, ["wandb"], [1, 2])
    time.sleep(1.1)  # W&B names its folders by the second
    assert write(tmp_path, ["wandb"], [3, 4], resumed_step=2) == first
    files = sorted((tmp_path / "wandb").glob(f"offline-run-*-{first}/*.wandb"))
    for file, losses in zip(files, ([b"1.0", b"0.5"], [b"0.3333", b"0.25"]), strict=True):
        deadline = time.monotonic() + 60  # W&B's process writes it
        while not all(loss in file.read_bytes() for loss in (b"training/loss", *losses)):
            assert time.monotonic() < deadline, file.read_bytes()
            time.sleep(0.1)
    assert [line["step"] for line in read_json_lines(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch):
    module.check_trackers(["tensorboard"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with refused("training.trackers", "'wandb'", "pip install", ".[wandb]"):
        module.check_trackers(["tensorboard", "wandb"])
