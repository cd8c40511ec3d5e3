"""A command as a process of its own, which ends before the one that started it."""

import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress

import psutil

from vidtl.runtime.exit import StoppedBySignalError
from vidtl.runtime.signals import StopSignals


def run_to_end(command: Sequence[str]) -> int:
    """Start a command, wait for it, and return its exit status; a signal that stops us stops it first.

    Raises:
        StoppedBySignalError: a signal came; the command has saved what it had to, and is gone.
    """
    with StopSignals() as signals:
        process = subprocess.Popen(command)
        try:
            with signals.immediate():
                return process.wait()
        except StoppedBySignalError:
            _stop(process)
            raise


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Terminate a command, and wait until it has ended its step and saved.

    A launcher passes no signal on, or is gone long before what it launched. On Ctrl-C all have it from the terminal,
    too, and take both as one.
    """
    everyone = [psutil.Process(process.pid)]
    with suppress(psutil.NoSuchProcess):
        everyone += everyone[0].children(recursive=True)
    for each in everyone:
        with suppress(psutil.NoSuchProcess):
            each.terminate()
    process.wait()
    while any(map(_is_at_work, everyone)):
        time.sleep(0.1)


def _is_at_work(process: psutil.Process) -> bool:
    """Whether a process has not ended; nobody may ask for the end of one whose launcher is gone."""
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False
