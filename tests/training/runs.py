"""Launch of tiny runs as processes, and their files."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.environment import ENVIRONMENT
from tests.training import tiny_run
from vidtl.training.checkpoint_directory import EMA, MODEL, OPTIMIZER, UNMERGED, checkpoint_step, list_checkpoints


def start(launcher, folder, **options):
    """Start `tiny_run` with a launcher, in a process group of its own; see its `main` for the options."""
    command = [*launcher, str(Path(tiny_run.__file__)), str(folder), json.dumps(options)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True, **pipes)


def finish(process):
    """Wait for a run that succeeds; return its steps, resumed step and form of distribution."""
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result


def log_lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder):
    return [line["loss"] for line in log_lines(folder) if "split" not in line]


def saved_steps(folder):
    return sorted(map(checkpoint_step, list_checkpoints(folder / "checkpoints")))


def tensors_of(checkpoint):
    files = [OPTIMIZER, *(f"{part}{name}" for part in ("", f"{EMA}/") for name in (MODEL, UNMERGED))]
    files = [file for file in files if (checkpoint / file).exists()]
    return {f"{file}:{name}": value for file in files for name, value in load_file(checkpoint / file).items()}


def are_equal(one, other):
    a, b = tensors_of(one), tensors_of(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def checkpoint_of(folder, step):
    return folder / f"checkpoints/step-{step:08d}"


def cut_back(source, target, step):
    """Copy a run as if it had been killed some time after its checkpoint of `step`."""
    shutil.copytree(source, target)
    for directory in list_checkpoints(target / "checkpoints"):
        if checkpoint_step(directory) > step:
            shutil.rmtree(directory)
    return target
