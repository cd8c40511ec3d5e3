"""Disks that fill up, checkpoints that vanish, and processes that cannot be started, in whole runs of the tools."""

import errno
import os
import shutil
import sys
from pathlib import Path

import eval as evaluation
import pytest
import train
from PIL import Image

from tests.environment import REPOSITORY
from tests.refusals import assert_refusal
from tests.tools.test_places import run
from vidtl.training.checkpoint import Checkpoint

FEW_FORKS = """
import errno, os, runpy, sys

_, left, *sys.argv = sys.argv
forks, fork = iter(range(int(left))), os.fork

def limited_fork():
    if next(forks, None) is None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()

os.fork = limited_fork
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""`python -c FEW_FORKS N TOOL OPTIONS...` runs a tool that can start N processes."""


@pytest.fixture
def command(toy, two_steps, tmp_path):
    return [*two_steps, "--data.root", toy, "--output_dir", tmp_path / "run"]


def fill(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_is_full_after_the_last_checkpoint_costs_the_picture_only(run_main, command, tmp_path, monkeypatch):
    save = Image.Image.save
    choose = lambda place: fill if "curves.png" in str(place) else save  # noqa: E731
    monkeypatch.setattr(Image.Image, "save", lambda *given, **more: choose(given[1])(*given, **more))
    _, errors = run_main(train.main, *command, "--data.num_workers", "0")
    *_, warning = (line for line in errors.splitlines() if line.startswith("WARNING"))
    assert_refusal(warning, tmp_path / "run/curves.png", os.strerror(errno.ENOSPC))
    assert not list((tmp_path / "run").rglob("*.tmp"))


def test_an_evaluation_takes_the_next_checkpoint_where_a_run_removes_its_own(
    run_main, command, toy, tmp_path, monkeypatch
):
    run_main(train.main, *command, "--data.num_workers", "0", "--training.checkpoint_every_steps", "1")
    verify = Checkpoint.verify
    removed: list[Path] = []

    def remove_and_verify(checkpoint):
        if not removed:
            removed.append(checkpoint.path)
            shutil.rmtree(checkpoint.path)
        verify(checkpoint)

    monkeypatch.setattr(Checkpoint, "verify", remove_and_verify)
    run_main(evaluation.main, "--checkpoint", tmp_path / "run", "--html", "false")
    assert removed == [tmp_path / "run/checkpoints/step-00000002"]
    assert (tmp_path / "run/evaluation/step-00000001").is_dir()


@pytest.mark.parametrize("forks", ["0", "2", "3"])
def test_processes_that_cannot_be_started_end_a_run_and_none_stays(command, forks):
    """No probe of the videos, one of two workers of the training, and one of two of the evaluation."""
    parts = [os.strerror(errno.EAGAIN), "data.num_workers", "ulimit -u"]
    run(sys.executable, "-c", FEW_FORKS, forks, REPOSITORY / "tools/train.py", *command, refused=parts)
