"""A command that is run to its end, and one that a signal stops."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.environment import ENVIRONMENT, wait_for
from vidtl.runtime.child import run_to_end

SAVING = """
import pathlib, signal, sys, time
def save(*_):
    time.sleep(1)
    pathlib.Path(sys.argv[1]).with_suffix(".saved").touch()
    sys.exit()
signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1]).touch()
time.sleep(60)
"""

LAUNCHER = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
"""Ends at once on SIGTERM, and leaves what it launched alone."""

STUDY = """
import os, sys
from vidtl.runtime.child import run_to_end
from vidtl.runtime.exit import StoppedBySignalError
try:
    run_to_end([sys.executable, *sys.argv[1:]])
except StoppedBySignalError:
    os._exit(7)
"""
"""Ends without the second that an interpreter takes, in which a command that was not waited for might have saved."""


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_status_is_that_of_the_command(code: int) -> None:
    assert run_to_end([sys.executable, "-c", f"raise SystemExit({code})"]) == code


@pytest.mark.parametrize("launch", [[], ["-c", LAUNCHER]], ids=["straight", "through a launcher"])
def test_a_signal_waits_until_the_command_has_saved(tmp_path: Path, launch: list[str]) -> None:
    started = tmp_path / "run.started"
    inner = [SAVING, str(started)]
    command = [*launch, *inner] if launch else ["-c", *inner]
    process = subprocess.Popen([sys.executable, "-c", STUDY, *command], env=ENVIRONMENT)
    wait_for(started, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 7
    assert started.with_suffix(".saved").exists(), "we ended first"
