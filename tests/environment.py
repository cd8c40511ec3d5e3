"""The repository, the environment of subprocesses, and waiting for them."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY)}
"""Environment of subprocesses: CPU only, one thread, modules of this repository."""

RunMain = Callable[..., tuple[str, str]]
"""Type of the fixture `run_main`."""


def wait_for(path: Path, process: "subprocess.Popen[Any]") -> None:
    """Wait until a process has written `path`; its output is the message if it ends before."""
    printed = process.stdout or process.stderr
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, printed and printed.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
