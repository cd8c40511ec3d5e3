"""The repository, the environment of subprocesses, and waiting for them."""

import os
import subprocess
import sys
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


def launch_command(config: str, *arguments: str | Path) -> list[str]:
    """Command of `accelerate launch` with a launch configuration of the project, on a free port."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0"]
    return [*launcher, "--config_file", str(REPOSITORY / f"configs/accelerate/{config}.yaml"), *map(str, arguments)]


def shared_folder(variable: str, name: str) -> Path:
    """Folder of shared inputs, which an environment variable may place elsewhere; it may not exist."""
    return Path(os.environ.get(variable, REPOSITORY.parent / "shared" / name)).resolve()
