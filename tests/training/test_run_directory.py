import os
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml

from tests.refusals import refused
from vidtl.config import DataConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from vidtl.training.run_directory import RunDirectory

CONFIG = ExperimentConfig()


@pytest.fixture
def taken(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.take(CONFIG, None)
    return directory


def snapshot(path):
    return {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}


def rewrite(file, change):
    recorded = yaml.safe_load(file.read_text())
    change(recorded)
    file.write_text(yaml.safe_dump(recorded))


def test_the_resolved_configuration_is_recorded(taken):
    recorded = yaml.safe_load(taken.config_file.read_text())
    assert list(recorded) == [
        "data", "clip", "augmentation", "model", "optimizer", "schedule", "training", "evaluation"
    ]  # fmt: skip
    assert recorded["optimizer"]["betas"] == [0.9, 0.999]
    assert recorded["model"]["architecture"] == "vivit"
    assert recorded["model"]["token_learner"]["num_tokens"] is None
    assert isinstance(recorded["optimizer"]["learning_rate"], float)


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        (replace(CONFIG, optimizer=OptimizerConfig(learning_rate=0.5)), ["optimizer.learning_rate", "0.001", "0.5"]),
        (replace(CONFIG, training=TrainingConfig(precision="bf16")), ["training.precision", "'auto'", "'bf16'"]),
        (replace(CONFIG, training=TrainingConfig(loss="focal")), ["training.loss", "''", "'focal'"]),
        (replace(CONFIG, data=DataConfig(dataset="other", root="x")), ["data.dataset", "'toy'", "'other'"]),
    ],
)
def test_another_experiment_is_refused_by_key_and_both_values(taken, config, parts):
    before = snapshot(taken.path)
    with refused(*parts):
        taken.find_checkpoint(config)
    assert snapshot(taken.path) == before


def test_what_changes_no_result_may_change(taken):
    data = DataConfig(root="elsewhere", num_workers=7, worker_timeout_s=5.0)
    training = TrainingConfig(
        log_every_steps=1, accumulation_steps=2, evaluate_every_epochs=0.0, compile="blocks", trackers=()
    )
    assert taken.find_checkpoint(replace(CONFIG, data=data, training=training)) is None


def test_a_key_that_the_record_lacks_was_at_its_default(taken):
    rewrite(taken.config_file, lambda recorded: recorded["optimizer"].pop("momentum"))
    assert taken.find_checkpoint(CONFIG) is None
    with refused("optimizer.momentum", "0.9", "0.5"):
        taken.find_checkpoint(replace(CONFIG, optimizer=OptimizerConfig(momentum=0.5)))


def test_a_key_that_no_longer_exists_names_another_version(taken):
    rewrite(taken.config_file, lambda recorded: recorded["clip"].update(wavelets=3))
    with refused("clip.wavelets", "3", "another version of vidtl"):
        taken.find_checkpoint(CONFIG)


@pytest.mark.parametrize("text", ["[1, 2]", "a: b: c", "\x00"])
def test_a_file_of_another_kind_is_left_alone(tmp_path, text):
    directory = RunDirectory(tmp_path)
    directory.config_file.write_text(text)
    with refused(directory.config_file, "output directory"):
        directory.find_checkpoint(CONFIG)
    assert directory.config_file.read_text() == text


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with refused("config.yaml", "No space left on device"):
        RunDirectory(tmp_path).take(CONFIG, None)


@pytest.mark.parametrize(
    ("manifest", "parts"),
    [(None, ("step-00000005", "manifest.json")), ('{"format": "vidtl-checkpoint-1"}', ("older version of vidtl",))],
)
def test_only_checkpoints_that_do_not_verify_are_an_error(taken, manifest, parts):
    never = replace(CONFIG, training=TrainingConfig(resume="never"))
    assert taken.find_checkpoint(never) is None
    (taken.checkpoints / "step-00000005").mkdir(parents=True)
    if manifest:
        (taken.checkpoints / "step-00000005/manifest.json").write_text(manifest)
    with refused("training.resume", "'never'"):
        taken.find_checkpoint(never)
    with refused(taken.checkpoints, *parts):
        taken.find_checkpoint(CONFIG)


LOCK = """
import sys
from pathlib import Path
from vidtl.errors import UserError
from vidtl.training.run_directory import RunDirectory
try:
    with RunDirectory(Path(sys.argv[1])).locked(): print('entered')
except UserError as error: print(error)
"""


def test_a_second_run_is_refused_by_process_and_host_until_the_first_ends(tmp_path):
    def second_run():
        command = [sys.executable, "-c", LOCK, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with RunDirectory(tmp_path).locked():
        child = os.fork()  # a decoding worker, which must not keep the lock of a run that is gone
        if child == 0:
            os.read(os.pipe()[0], 1)
        assert f"in use by process {os.getpid()} on " in second_run()
    try:
        assert second_run() == "entered"
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with refused(f"output directory {path}"), RunDirectory(path).locked():
            raise AssertionError("locked")
