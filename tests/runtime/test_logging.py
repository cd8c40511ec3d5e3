import json
import logging
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vidtl.runtime.logging import MetricsLog, configure_logging, drop_lines_beyond, read_json_lines
from vidtl.runtime.trackers import start_trackers


def write(folder, steps, resumed_step=0):
    log = MetricsLog(folder / "metrics.jsonl", start_trackers(["tensorboard"], folder, {}, resumed_step), resumed_step)
    for step in steps:
        log.write(step, step / 10, {"loss": 1 / step})
    log.close()


def test_a_resumed_log_has_each_step_once(tmp_path):
    write(tmp_path, range(1, 9))
    write(tmp_path, range(5, 11), resumed_step=4)
    assert [e["step"] for e in read_json_lines(tmp_path / "metrics.jsonl")] == list(range(1, 11))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("training/loss")
    assert [(e.step, round(e.value, 4)) for e in events] == [(s, round(1 / s, 4)) for s in range(1, 11)]


def test_numbers_that_are_not_finite_are_null(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", [], 0)
    log.write(3, 1.0, {"mAP": float("nan"), "top1": 0.5}, "val")
    log.close()
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line == {"step": 3, "epoch": 1.0, "split": "val", "mAP": None, "top1": 0.5}


def test_torn_and_strange_lines_are_left_out(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 1}\n[2]\n{"step": "x"}\n\xff\xfe\n{"step": 2}\n{"step": 3, "lo')
    assert list(read_json_lines(file)) == [{"step": 1}, {"step": 2}]
    drop_lines_beyond(file, 1)
    assert file.read_text() == '{"step": 1}\n'
    assert list(tmp_path.iterdir()) == [file]


def test_dropping_from_no_file_makes_none(tmp_path):
    drop_lines_beyond(tmp_path / "metrics.jsonl", 1)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def logger():
    logger = logging.getLogger("vidtl")
    before = logger.handlers, logger.propagate, logger.level
    yield logging.getLogger("vidtl.somewhere")
    logger.handlers, logger.propagate, logger.level = before


def test_messages_of_strangers_cannot_control_the_terminal(logger, capsys):
    configure_logging(is_main_process=True)
    logger.warning("video %s", "a\x1b[2Jb\x9bc")
    assert capsys.readouterr().err == "WARNING: video a\\x1b[2Jb\\x9bc\n"


def test_other_processes_report_errors_only(logger, capsys):
    configure_logging(is_main_process=False)
    logger.warning("seen everywhere")
    logger.error("broken")
    print("end", file=sys.stderr)
    assert capsys.readouterr().err == "ERROR: broken\nend\n"
