"""Evaluation and prediction without what Windows lacks: fork, signals, locks and limits of processes."""

import os
import subprocess
import sys

from tests.environment import ENVIRONMENT, REPOSITORY

TAKEN_AWAY = """
import multiprocessing, os, signal, sys
from multiprocessing.popen_fork import Popen
multiprocessing.set_start_method("spawn")
Popen.kill = lambda self: self._send_signal(9)  # the standard library of this system needs SIGKILL
for name in ("fcntl", "resource"):
    sys.modules[name] = None
for name in ("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGPROF", "SIGHUP", "SIGKILL", "SIGBUS", "setitimer"):
    delattr(signal, name)
for name in ("fork", "sched_getaffinity", "statvfs"):
    delattr(os, name)
"""


def test_trained_models_are_used_without_posix(tmp_path, toy, random_model):
    (tmp_path / "sitecustomize.py").write_text(TAKEN_AWAY)
    environment = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])}
    model, video = random_model(tmp_path / "model"), str(next(toy.rglob("*.mp4")))

    def run(tool, *options):
        command = [sys.executable, str(REPOSITORY / f"tools/{tool}.py"), "--checkpoint", str(model), *map(str, options)]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert subprocess.run([sys.executable, "-c", "import fcntl"], env=environment, check=False).returncode
    data = ("--data.root", toy, "--data.dataset", "toy", "--data.num_workers", "0")
    assert "frames" in run("predict", video, *data[-2:])
    assert "16 scored" in run("eval", *data, "--output_dir", "report", "--html", "false")
    run("visualize", *data, "--output_dir", "pictures")
    assert list((tmp_path / "pictures").rglob("*.png"))
    run("export", "--output", "model.pt2")
    assert (tmp_path / "model.pt2").is_file()
