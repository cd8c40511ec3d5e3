"""Places where runs differ from the usual: sets without a validation split, small machines, other paths."""

import errno
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import eval as evaluation
import pytest
import train

from tests.environment import ENVIRONMENT, REPOSITORY
from tests.refusals import assert_refusal
from vidtl.training.run_directory import RunDirectory

WITHOUT_LOCKS = """
import ctypes, os, struct, sys

_, number, *command = sys.argv
# A filter of system calls: fcntl (72) with F_SETLK (6) fails with this error.
steps = [(0x20, 0, 0, 0), (0x15, 0, 3, 72), (0x20, 0, 0, 24), (0x15, 0, 1, 6), (6, 0, 0, 0x50000 | int(number))]
program = b"".join(struct.pack("HBBI", *step) for step in [*steps, (6, 0, 0, 0x7FFF0000)])
prctl = ctypes.CDLL(None).prctl
assert prctl(38, 1, 0, 0, 0) == 0
assert prctl(22, 2, struct.pack("HP", 6, ctypes.cast(program, ctypes.c_void_p).value), 0, 0) == 0
os.execv(sys.executable, [sys.executable, *command])
"""
"""`python -c WITHOUT_LOCKS ERRNO TOOL OPTIONS...` runs a tool as on a file system whose locks fail."""


def run(*command, limits="", refused=()):
    """Run a command within limits of the shell, and check that it leaves no process, and what its last line names."""
    line = f'{limits} exec "$@"'
    done = subprocess.run(
        ["bash", "-c", line, "bash", *command], env=ENVIRONMENT, capture_output=True, text=True, timeout=200
    )  # a process that stays would hold its output open
    assert "Traceback" not in done.stderr
    if refused:
        assert done.returncode == 2, done.stderr
        assert_refusal(done.stderr.splitlines()[-1], *refused)
    return done


@pytest.fixture
def command(toy, two_steps, tmp_path):
    data = ["--data.root", toy, "--data.manifest", "none", "--output_dir", tmp_path / "run"]
    return [REPOSITORY / "tools/train.py", *two_steps, *data]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of system calls")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EAGAIN], ids=errno.errorcode.get)
def test_file_systems_without_locks_work_with_a_warning(command, toy, tmp_path, number):
    preparing = [REPOSITORY / "tools/prepare.py", "--dataset", "toy", "--root", toy, "--output", tmp_path / "manifest"]
    for tool, place in ((command, tmp_path / "run"), (preparing, tmp_path / "manifest")):
        locked = [place, "in use"] if number == errno.EAGAIN else []  # by another process
        done = run(sys.executable, "-c", WITHOUT_LOCKS, str(number), *tool, refused=locked)
        if not locked:
            assert done.returncode == 0, done.stderr
            assert any("WARNING" in line and str(place) in line for line in done.stderr.splitlines())
    written = ("run/summary.json", "manifest/manifest.sqlite")
    assert [(tmp_path / file).exists() for file in written] == [not locked] * 2


@pytest.mark.parametrize(("limit", "workers"), [(12, "0"), (64, "8")])
def test_few_open_files_end_a_run_in_one_line(command, limit, workers):
    parts = ["data.num_workers", limit, "ulimit -n"]
    run(sys.executable, *command, "--data.num_workers", workers, limits=f"ulimit -n {limit};", refused=parts)


def test_the_soft_limit_of_open_files_is_raised(command):
    assert run(sys.executable, *command, limits="ulimit -Sn 40;").returncode == 0


def in_small_memory(command, refused=()):
    """Run a tool with 2 MiB of shared memory; skip without the right to mount."""
    mount = ["unshare", "-m", "bash", "-c", 'mount -t tmpfs -o size=2m tmpfs /dev/shm && exec "$@"', "bash"]
    if subprocess.run([*mount, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount")
    return run(*mount, sys.executable, *command, refused=refused)


def test_little_shared_memory_is_told_before_the_first_batch(command, untrained_model, toy, tmp_path):
    """Batches of 8 clips of 8 small frames fit, those of larger pictures or with more views do not."""
    assert in_small_memory(command).returncode == 0
    large = ["--clip.frame_size", "[224,224]", "--clip.short_side", "224", "--output_dir", tmp_path / "large"]
    evaluating = [REPOSITORY / "tools/eval.py", "--checkpoint", untrained_model, "--data.dataset", "toy"]
    views = ["--data.root", toy, *large, "--evaluation.protocol", "vivit_4x3", "--data.num_workers", "0"]
    for tool in ([*command, *large], [*evaluating, *views]):
        in_small_memory(tool, refused=["/dev/shm", "of 2 MiB", "--shm-size", "data.num_workers"])


@pytest.fixture
def without_validation(toy, two_steps, tmp_path):
    """Options of a run of two steps on a set with the splits `train` and `test`."""
    text = (REPOSITORY / "datasets/toy/dataset.yaml").read_text().replace("  val:", "  test:")
    (tmp_path / "dataset.yaml").write_text(text.replace("classes: classes.txt", ""))
    return [*two_steps, "--data.dataset", tmp_path, "--data.root", toy, "--data.num_workers", "0"]


def test_a_set_without_validation_split_trains(run_main, without_validation, tmp_path):
    run = RunDirectory(tmp_path / "run")
    output, errors = run_main(train.main, *without_validation, "--output_dir", run.path)
    (warning,) = (line for line in errors.splitlines() if line.startswith("WARNING") and "data.eval_split" in line)
    assert "train, test" in warning
    assert "best" not in output
    assert re.search(r"^next +python \S*predict\.py VIDEO --checkpoint ", output, re.MULTILINE)
    summary = json.loads(run.summary_file.read_text())
    assert (summary["results"]["best"], summary["results"]["metrics"]) == (None, {})
    assert summary["data"]["videos"] == {"train": 32, "evaluation": 0}
    assert all(each.exists() for each in (run.path / "curves.png", run.checkpoints / "step-00000002"))


@pytest.mark.parametrize(
    "option",
    [
        ("--data.eval_split", "val"),
        ("--training.best_metric", "top1"),
        ("--training.early_stop_evaluations", "3"),
        ("--data.train_split", ""),
    ],
)
def test_settings_that_need_a_validation_split_are_refused_without_one(run_main, without_validation, tmp_path, option):
    key, value = option[0].removeprefix("--"), option[1]
    parts = [key, value] if key.startswith("training") else [repr(value)]
    run_main(train.main, *without_validation, *option, "--output_dir", tmp_path / "run", refused=parts)
    assert not (tmp_path / "run").exists()


def test_a_run_resumes_and_is_evaluated_by_other_paths_of_the_same_data(
    run_main, toy, two_steps, tmp_path, monkeypatch
):
    shutil.copytree(REPOSITORY / "datasets/toy", tmp_path / "sets/mine")
    monkeypatch.chdir(tmp_path)
    for length, dataset, root in (("1", "sets/mine", toy), ("2", tmp_path / "sets/mine", os.path.relpath(toy))):
        data = ["--data.dataset", dataset, "--data.root", root, "--data.num_workers", "0"]
        run_main(train.main, *two_steps, *data, "--schedule.length", f"{length} steps", "--output_dir", "run")
        run_main(evaluation.main, *data, "--checkpoint", "run", "--html", "false", "--output_dir", f"e{length}")
    assert json.loads(Path("run/summary.json").read_text())["attempts"][1]["first_step"] == 1
    run_main(evaluation.main, "--checkpoint", "run", "--data.root", toy, "--html", "false", "--output_dir", "e2")
