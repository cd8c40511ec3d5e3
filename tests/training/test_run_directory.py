import json
import logging
import os
import signal
import socket
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml

from tests.refusals import refused
from tests.stress.outcome import ending_of, in_child
from vidtl.config import DataConfig, ExperimentConfig, OptimizerConfig, ScheduleConfig, TrainingConfig
from vidtl.data.batch import Failure
from vidtl.training.monitor import UnreadableVideos
from vidtl.training.run_directory import RunDirectory
from vidtl.training.state import TrainingState

CONFIG = ExperimentConfig()


@pytest.fixture
def taken(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.take(CONFIG, None)
    return directory


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"optimizer": OptimizerConfig(learning_rate=0.5)}, ["optimizer.learning_rate", "0.001", "0.5"]),
        ({"training": TrainingConfig(loss="focal")}, ["training.loss", "''", "'focal'"]),
        ({"data": DataConfig(dataset="other", root="x")}, ["data.dataset", "''", "'other'"]),
        ({"schedule": ScheduleConfig(length="29 epochs")}, ["schedule.length", "'30 epochs'", "'29 epochs'"]),
        ({"schedule": ScheduleConfig(length="9000 steps")}, ["schedule.length", "'30 epochs'", "'9000 steps'"]),
        ({"schedule": ScheduleConfig(length="31 epochs", warmup="1 epoch")}, ["schedule.warmup", "'2.5 epochs'"]),
    ],
)
def test_another_experiment_is_refused_and_nothing_changes(taken, change, parts):
    before = {p: p.read_bytes() for p in taken.path.rglob("*") if p.is_file()}
    with refused(*parts):
        taken.find_checkpoint(replace(CONFIG, **change))
    assert {p: p.read_bytes() for p in taken.path.rglob("*") if p.is_file()} == before


def test_keys_of_another_version_have_their_default_or_are_named(taken):
    recorded = yaml.safe_load(taken.config_file.read_text())
    assert (recorded["optimizer"]["betas"], recorded["model"]["token_learner"]["num_tokens"]) == ([0.9, 0.999], None)
    del recorded["optimizer"]["momentum"]
    taken.config_file.write_text(yaml.safe_dump(recorded))
    assert taken.find_checkpoint(CONFIG) is None
    with refused("optimizer.momentum", "0.9", "0.5"):
        taken.find_checkpoint(replace(CONFIG, optimizer=OptimizerConfig(momentum=0.5)))
    recorded["clip"]["wavelets"] = 3
    taken.config_file.write_text(yaml.safe_dump(recorded))
    with refused("clip.wavelets", "3", "another version of vidtl"):
        taken.find_checkpoint(CONFIG)


@pytest.mark.parametrize("text", ["[1, 2]", "a: b: c", "\x00"])
def test_a_file_of_another_kind_is_refused_and_kept(tmp_path, text):
    directory = RunDirectory(tmp_path)
    directory.config_file.write_text(text)
    with refused(directory.config_file, "output directory"):
        directory.find_checkpoint(CONFIG)
    assert directory.config_file.read_text() == text


@pytest.mark.parametrize(
    ("manifest", "parts"),
    [(None, ("step-00000005", "manifest.json")), ('{"format": "vidtl-checkpoint-1"}', ("older version of vidtl",))],
)
def test_a_directory_with_only_invalid_checkpoints_is_refused(taken, manifest, parts):
    never = replace(CONFIG, training=TrainingConfig(resume="never"))
    assert taken.find_checkpoint(never) is None
    (taken.checkpoints / "step-00000005").mkdir(parents=True)
    if manifest:
        (taken.checkpoints / "step-00000005/manifest.json").write_text(manifest)
    with refused("training.resume", "'never'"):
        taken.find_checkpoint(never)
    with refused(taken.checkpoints, *parts):
        taken.find_checkpoint(CONFIG)


@pytest.mark.usefixtures("accelerator")
def test_a_second_run_is_refused_by_process_and_host_until_the_first_ends(tmp_path):
    def start_run(*refusal):
        with refused(*refusal) if refusal else nullcontext(), RunDirectory(tmp_path).locked():
            pass

    owner = f"in use by process {os.getpid()} on "
    with RunDirectory(tmp_path).locked():
        worker = in_child(lambda: os.read(os.pipe()[0], 1))  # must not keep the lock of a run that has ended
        assert ending_of(in_child(lambda: start_run(owner, socket.gethostname()))) == 0
    try:
        assert ending_of(in_child(start_run)) == 0
    finally:
        os.kill(worker, signal.SIGKILL)
        ending_of(worker)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with refused(path, "could not be written"), RunDirectory(path).locked():
            raise AssertionError("locked")


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl", "unreadable.jsonl", "checkpoints", "stacks", "wandb"])
def test_nothing_is_written_through_a_link_in_the_directory_which_may_be_one(tmp_path, name):
    run, victim = tmp_path / "run", tmp_path / "victim"
    (tmp_path / "disk").mkdir()
    run.symlink_to(tmp_path / "disk")
    victim.write_text("mine")
    with RunDirectory(run).locked():
        pass
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(victim)
    with refused(run / name, "link"), RunDirectory(run).locked():
        raise AssertionError("locked")
    assert victim.read_text() == "mine"


LOADER = SimpleNamespace(steps_per_epoch=3, clips_of_classes=lambda steps: {"jump": 10 * steps, "run": 20 * steps})


@pytest.fixture
def start(tmp_path, accelerator):
    def start(resumed_step=0):
        file = tmp_path / "unreadable.jsonl"
        videos = UnreadableVideos(file, accelerator, LOADER, max_share=0.9, repeats=2, resumed_step=resumed_step)
        return videos, TrainingState(step=resumed_step)

    return start


def take(videos, state, *failures):
    state.step += 1
    videos.add(state, 8, sum(failure.attempt == 0 for failure in failures), failures)


def test_failures_are_counted_by_path_and_class(start, caplog):
    caplog.set_level(logging.WARNING, logger="vidtl")
    videos, state = start()
    take(videos, state)
    assert not videos.file.exists()
    take(videos, state, Failure(0, "a.mp4", "cut short", ("jump",)), Failure(4, "b.mp4", "empty", ("jump",), 1))
    assert [record.args for record in caplog.records] == [("a.mp4", "jump", "cut short"), ("b.mp4", "jump", "empty")]
    caplog.clear()
    take(videos, state, Failure(7, "c.mp4", "empty", ("jump", "run")))
    assert [record.args for record in caplog.records][1:] == [("jump", 4, 30), ("run", 2, 60)]
    caplog.clear()
    for _ in range(3):
        take(videos, state)
    assert not caplog.records  # nothing new in the second epoch
    assert videos.by_path == {"a.mp4": 1, "b.mp4": 1, "c.mp4": 1}
    assert videos.by_class(state.step) == {"jump": (4, 60), "run": (2, 120)}
    # Videos are counted, neither clips nor substitutes: 4 in each of 6 steps.
    assert (state.videos_asked, state.videos_unreadable) == (24, 2)
    lines = [json.loads(line) for line in videos.file.read_text().splitlines()]
    assert lines[2] == {"step": 3, "path": "c.mp4", "reason": "empty", "classes": ["jump", "run"], "attempt": 0}


def test_a_resumed_run_continues_the_counts(start, monkeypatch):
    # pytest sends what is logged from process to process, in UTF-8; a terminal gets escapes
    monkeypatch.setattr(logging.getLogger("vidtl.training.monitor"), "disabled", True)
    first, state = start()
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")  # not UTF-8
    for _ in range(2):  # the second is lost: the run resumes from step 1
        take(first, state, Failure(0, name, "cut short", ("jump",)))
    second, state = start(resumed_step=1)
    assert second.by_path == {name: 1}
    take(second, state, Failure(3, "c.mp4", "empty", ("run",)))
    assert second.by_class(3) == {"jump": (2, 30), "run": (2, 60)}
