import os
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml

from vidtl.config import DataConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from vidtl.errors import UserError
from vidtl.training.run_directory import RunDirectory

CONFIG = ExperimentConfig()


@pytest.fixture
def taken(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.take(CONFIG, None)
    return directory


def snapshot(path):
    return {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_the_recorded_configuration_is_the_whole_one(taken):
    recorded = yaml.safe_load(taken.config_file.read_text())
    assert list(recorded) == [
        "data",
        "clip",
        "augmentation",
        "model",
        "optimizer",
        "schedule",
        "training",
        "evaluation",
    ]
    assert recorded["optimizer"]["betas"] == [0.9, 0.999]
    assert recorded["model"]["architecture"] == "vivit"
    assert recorded["model"]["token_learner"]["num_tokens"] is None
    assert isinstance(recorded["optimizer"]["learning_rate"], float)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (replace(CONFIG, optimizer=OptimizerConfig(learning_rate=0.5)), ["optimizer.learning_rate", "0.001", "0.5"]),
        (replace(CONFIG, training=TrainingConfig(precision="bf16")), ["training.precision", "'auto'", "'bf16'"]),
        (replace(CONFIG, data=DataConfig(dataset="other", root="x")), ["data.dataset", "'toy'", "'other'"]),
    ],
)
def test_another_experiment_is_refused_by_key_and_both_values(taken, config, words):
    before = snapshot(taken.path)
    with pytest.raises(UserError) as caught:
        taken.find_checkpoint(config)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)
    assert snapshot(taken.path) == before


def test_what_changes_no_result_may_change(taken):
    data = DataConfig(root="elsewhere", num_workers=7, worker_timeout_s=5.0, max_substitutions=5)
    training = TrainingConfig(
        log_every_steps=1, accumulation_steps=2, evaluate_every_epochs=0.0, compile="blocks", trackers=()
    )
    assert taken.find_checkpoint(replace(CONFIG, data=data, training=training)) is None


def test_a_key_that_the_record_lacks_was_at_its_default(taken):
    recorded = yaml.safe_load(taken.config_file.read_text())
    del recorded["model"]["tokenizer"]
    taken.config_file.write_text(yaml.safe_dump(recorded))
    assert taken.find_checkpoint(CONFIG) is None
    with pytest.raises(UserError, match=r"model.tokenizer is None there and 't2t_performer' here"):
        taken.find_checkpoint(replace(CONFIG, model=replace(CONFIG.model, tokenizer="t2t_performer")))


def test_a_key_that_is_no_more_is_a_difference(taken):
    recorded = yaml.safe_load(taken.config_file.read_text())
    recorded["clip"]["wavelets"] = 3
    taken.config_file.write_text(yaml.safe_dump(recorded))
    with pytest.raises(UserError, match=r"clip.wavelets is 3 there and '\(absent\)' here"):
        taken.find_checkpoint(CONFIG)


@pytest.mark.parametrize("text", ["[1, 2]", "a: b: c", "\x00"])
def test_a_file_of_another_kind_is_left_alone(tmp_path, text):
    directory = RunDirectory(tmp_path)
    directory.config_file.write_text(text)
    with pytest.raises(UserError, match="not a run's directory"):
        directory.find_checkpoint(CONFIG)
    assert directory.config_file.read_text() == text


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match=r"config.yaml could not be written: No space left on device"):
        RunDirectory(tmp_path).take(CONFIG, None)


def test_never_resuming_refuses_a_directory_with_checkpoints(taken):
    never = replace(CONFIG, training=TrainingConfig(resume="never"))
    assert taken.find_checkpoint(never) is None
    (taken.checkpoints / "step-00000005").mkdir(parents=True)
    with pytest.raises(UserError, match=r"training.resume is 'never'"):
        taken.find_checkpoint(never)


def test_only_broken_checkpoints_do_not_mean_starting_anew(taken):
    (taken.checkpoints / "step-00000005").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no checkpoint in .* is whole"):
        taken.find_checkpoint(CONFIG)


def test_a_second_run_is_refused_by_process_and_host_until_the_first_ends(tmp_path):
    directory = RunDirectory(tmp_path)
    code = (
        "import sys; from pathlib import Path; from vidtl.errors import UserError\n"
        "from vidtl.training.run_directory import RunDirectory\n"
        "try:\n    with RunDirectory(Path(sys.argv[1])).locked(): print('entered')\n"
        "except UserError as error: print(error)\n"
    )

    def second_run():
        command = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with directory.locked():
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
        with (
            pytest.raises(UserError, match=f"output directory {path} cannot be written: "),
            RunDirectory(path).locked(),
        ):
            raise AssertionError("locked")
