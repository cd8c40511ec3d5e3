"""A folder with toy data and tiny runs, and the tools run as subprocesses of one prepared process."""

import contextlib
import json
import os
import runpy
import sys
from collections.abc import Mapping
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from tests.environment import REPOSITORY

Settings = Mapping[str, Any]
"""Values by dotted key."""


def section(name: str, **values: Any) -> dict[str, Any]:
    return {f"{name}.{key}": value for key, value in values.items()}


def options(settings: Settings) -> list[str]:
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
    return [part for key, text in texts.items() for part in (f"--{key}", text)]


TINY = section("clip", num_frames=8, stride=2, frame_size=[32, 32], short_side=36) | {"data.num_workers": 0}


def prepare_process() -> None:
    """Import slow packages once for all tools, and make the tools' shared modules importable."""
    os.environ.update(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    sys.path.insert(0, str(REPOSITORY / "tools"))
    torch.set_num_threads(1)
    for module in ("accelerate", "av", "cv2", "huggingface_hub.hub_mixin", "matplotlib.pyplot", "torchmetrics"):
        with contextlib.suppress(ImportError):
            __import__(module)


def experiment(settings: Settings, file: str = "") -> Any:
    """Parse a configuration file and settings over it, as the tools do."""
    return _parsed((*(("--config", str(REPOSITORY / file)) if file else ()), *options(settings)))


@cache
def _parsed(arguments: tuple[str, ...]) -> Any:
    from command_line import ExperimentParser, parse_experiment

    return parse_experiment(ExperimentParser("snapshot", ""), list(arguments))[1]


class Workplace:
    """A folder with toy data and tiny runs, made by the tools on first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = 0

    def tool(self, name: str, *arguments: object, settings: Settings | None = None) -> Path:
        """Run `tools/NAME.py`, which must succeed, in a fork of this process: the file with its standard output."""
        self.calls += 1
        output = self.folder / f"{self.calls}-{name}.out"
        command = [str(REPOSITORY / f"tools/{name}.py"), *map(str, arguments), *options(settings or {})]
        process = get_context("fork").Process(target=_run_tool, args=(command, output))
        process.start()
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"{command}: exit code {process.exitcode}: {output.with_suffix('.err').read_text()}")
        return output

    def toy(self, name: str) -> Path:
        """Generate a small set, `toy` or `toy_multilabel`: its folder."""
        if not (self.folder / name).is_dir():
            size = ("--seed", 3, "--videos_per_class_train", 3, "--videos_per_class_val", 1, "--num_processes", 1)
            self.tool("make_toy", self.folder / name, *size, *["--multi_label"] * (name == "toy_multilabel"))
        return self.folder / name

    def data(self, name: str) -> dict[str, Any]:
        return {"data.dataset": name, "data.root": str(self.toy(name))}

    def run(self, name: str) -> Path:
        """Train a model with TokenLearner for 20 steps on one of the toy sets: the folder of the run."""
        folder = self.folder / f"run-{name}"
        if not folder.is_dir():
            model = section("model", width=24, depth=2, num_heads=3, temporal_depth=1, tubelet=[4, 8, 8])
            model |= {"model.activation": "gelu_tanh"} | section("model.token_learner", num_tokens=8, after_block=1)
            training = section("training", batch_size=8, log_every_steps=1, evaluate_every_epochs=0, trackers=[])
            schedule = section("schedule", length="20 steps", warmup="2 steps")
            settings = TINY | self.data(name) | model | training | schedule | {"optimizer.learning_rate": 0.01}
            self.tool("train", "--output_dir", folder, settings=settings)
        return folder


def _run_tool(command: list[str], output: Path) -> None:
    with output.open("wb") as out, output.with_suffix(".err").open("wb") as errors:
        os.dup2(out.fileno(), 1)
        os.dup2(errors.fileno(), 2)
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")
