"""Where the tests lie, the surroundings of processes that they start, and how far these are."""

import os
import subprocess
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY)}
"""Of a process on the CPU: one thread for each, and this repository's code in the tests' scripts, too."""


def wait_for(path: Path, process: "subprocess.Popen[Any]") -> None:
    """Until a process has written `path`; what it printed to a pipe is the message where it ends before that."""
    printed = process.stdout or process.stderr
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, printed and printed.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
