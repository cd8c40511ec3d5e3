"""Tools in fresh processes: mistakes and help before slow imports, and work without what Windows lacks."""

import os
import subprocess
import sys

import pytest

from tests.environment import ENVIRONMENT, REPOSITORY
from tests.refusals import assert_refusal

TOOLS = (
    *("train", "eval", "predict", "visualize", "profile_model", "export", "convert_weights", "prepare", "study"),
    *("make_toy", "report", "features", "probe", "__main__"),
)
SLOW = {"torch", "torch._dynamo", "accelerate", "matplotlib", "scipy", "torchmetrics", "transformers"}

MISTAKES = {
    **{tool: (("--confg", "x"), ("--confg",)) for tool in TOOLS if tool != "study"},
    "train, key": (("--output_dir", "x", "--clip.strid", "2"), ("--clip.strid", "--clip.stride")),
    "train, value": (("--output_dir", "x", "--clip.num_frames", "0"), ("clip.num_frames", "0")),
    "train, file": (("--output_dir", "x", "--config", "configs/toyy.yaml"), ("configs/toyy.yaml", "'toy.yaml'")),
    "train, root": (("--output_dir", "x", "--data.root", "no/such"), ("data.root", "no/such")),
    "train, dataset": (("--output_dir", "x", "--data.dataset", "toi"), ("data.dataset", "'toi'", "'toy'")),
    "train, protocol": (
        ("--output_dir", "x", "--data.dataset", "toy", "--evaluation.protocol", "centre"),
        ("'centre'", "'center'"),
    ),
    "__main__, tool": (("trian",), ("'trian'", "'train'")),
    "study, option": (("x.yaml", "--output_dir", "x", "--confg", "x"), ("--confg",)),
    "study, file": (("no.yaml", "--output_dir", "x"), ("no.yaml",)),
    "eval, checkpoint": (("--checkpoint", "no/such"), ("no/such",)),
    "eval, value": (("--checkpoint", "x", "--evaluation.averaged_weights", "2"), ("evaluation.averaged_weights", "2")),
    "predict, checkpoint": (("x.mp4", "--checkpoint", "no/such"), ("no/such",)),
    "features, checkpoint": (("x.mp4", "--checkpoint", "no/such", "--output", "x"), ("no/such",)),
    "probe, option": (("x", "y", "--save", "z"), ("--save", "'z'", "--checkpoint")),
    "visualize, checkpoint": (("--checkpoint", "no/such"), ("no/such",)),
    "export, checkpoint": (("--checkpoint", "no/such", "--output", "x.onnx"), ("no/such",)),
}


def start(tool, *options):
    """Run a tool: exit code, output, errors and the slow modules imported."""
    command = [sys.executable, "-X", "importtime", str(REPOSITORY / f"tools/{tool}.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=120)
    lines = done.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    errors = "\n".join(line for line in lines if not line.startswith("import time:"))
    return done.returncode, done.stdout, errors, imported & SLOW


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_reported_first(mistake):
    options, parts = MISTAKES[mistake]
    code, _, errors, slow = start(mistake.partition(",")[0], *options)
    assert (code, slow) == (2, set()), errors
    assert_refusal(errors, *parts)


@pytest.mark.parametrize("tool", TOOLS)
def test_help_is_printed_first(tool):
    code, text, errors, slow = start(tool, "--help")
    assert (code, slow, errors) == (0, set(), "")
    assert "--" in text


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
