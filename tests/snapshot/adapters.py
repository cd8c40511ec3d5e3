"""What the snapshot needs of the project. A refactoring changes the bodies here, and never what they return.

Settings have the names that they had when the snapshot was recorded; `RENAMES` translates them.
"""

import contextlib
import dataclasses
import json
import os
import runpy
import sys
from functools import cache, cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from tests.environment import REPOSITORY
from tests.snapshot.compare import REMOVED
from tests.snapshot.renames import RENAMES, Settings, section

TINY = section("clip", num_frames=8, stride=2, frame_size=[32, 32], short_side=36) | {"data.num_workers": 0}
"""Clips that cost next to nothing."""


def experiment(settings: Settings, file: str = "") -> Any:
    """Resolve the configuration of a file and of settings over it, as the tools do."""
    return _parse((*(("--config", str(REPOSITORY / file)) if file else ()), *RENAMES.options(settings)))


@cache
def _parser() -> Any:
    from command_line import ExperimentParser

    return ExperimentParser("snapshot", "")


@cache
def _parse(arguments: tuple[str, ...]) -> Any:
    from command_line import parse_experiment

    return parse_experiment(_parser(), list(arguments))[1]


def resolved(settings: Settings, file: str = "") -> dict[str, Any]:
    """Resolve a configuration and list all its values by dotted key."""

    def leaves(values: dict[str, Any], prefix: str) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for name, value in values.items():
            flat |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
        return flat

    return json.loads(json.dumps(leaves(dataclasses.asdict(experiment(settings, file)), "")))


def read_records(dataset: str, split: str, root: Path) -> Any:
    """Read the records of a split."""
    from vidtl.annotations.description import load_description, read_records

    return read_records(load_description(dataset), split, root)


def record_rows(dataset: str, split: str, root: Path) -> list[str]:
    """Describe each record: id, path, each label with its times, the part of the file."""
    records = read_records(dataset, split, root)
    starts, ends = records.label_starts_s.tolist(), records.label_ends_s.tolist()
    labels = [
        f"{records.classes.names[number]}@{start:g}..{end:g}"
        for number, start, end in zip(records.label_classes.tolist(), starts, ends, strict=True)
    ]
    offsets = records.label_offsets.tolist()
    parts = zip(records.segment_starts_s.tolist(), records.segment_ends_s.tolist(), strict=True)
    return [
        f"{name} | {path} | {'; '.join(labels[first:last])} | {start:g}..{end:g}"
        for name, path, first, last, (start, end) in zip(
            records.ids, records.paths, offsets[:-1], offsets[1:], parts, strict=True
        )
    ]


def write_cifar10(folder: Path, form: str) -> None:
    """Write a small CIFAR-10 in one of its forms."""
    from tests.data.cifar_files import write_cifar10

    write_cifar10(folder, form, per_batch=2)


def training_clips(settings: Settings, epoch: int, sample: int) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Decode all clips of one video: uint8 pixels and targets, and the augmented input of the model."""
    from vidtl.data.augmentation import batch_input
    from vidtl.data.dataset import ClipDataset, ClipKey, collate

    config = experiment(settings)
    records = read_records(config.data.dataset, "train", Path(config.data.root))
    batch = collate([ClipDataset(records, config)[ClipKey(epoch, sample, 1.0)]])
    return batch.pixels.numpy(), batch.targets.numpy(), batch_input(batch, config.clip)[0]


def first_batch(settings: Settings) -> tuple[torch.Tensor, torch.Tensor]:
    """Read input and targets of the first step of a training, mixed."""
    from vidtl.data.augmentation import batch_input
    from vidtl.data.loader import TrainLoader

    config = experiment(settings)
    records = read_records(config.data.dataset, "train", Path(config.data.root))
    return batch_input(next(TrainLoader(records, config, 0, 1).iterate()), config.clip)


def evaluation_clips(settings: Settings, protocol: str, sample: int) -> np.ndarray:
    """Decode all views of one video: uint8 pixels."""
    from vidtl.data.dataset import ViewDataset
    from vidtl.data.protocols import get_protocol

    config = experiment(settings)
    records = read_records(config.data.dataset, "val", Path(config.data.root))
    return ViewDataset(records, config, get_protocol(protocol))[sample].pixels.numpy()


def protocol_tables(protocol: str, frames: int, fps: float, size: tuple[int, int], settings: Settings) -> Any:
    """Compute the frame numbers of all clips of a protocol, and all crop boxes."""
    from vidtl.data.protocols import get_protocol, view_boxes, view_indices

    clip, chosen = experiment(settings).clip, get_protocol(protocol)
    return view_indices(chosen, frames, clip, fps), [list(box) for box in view_boxes(chosen, *size, clip)]


def fused(protocol: str, logits_VK: np.ndarray, multi_label: bool) -> list[float]:
    """Fuse the logits of views as a protocol does."""
    from vidtl.data.protocols import get_protocol
    from vidtl.evaluation.scoring import fuse

    return fuse(logits_VK, get_protocol(protocol).fusion, multi_label).tolist()


def training_place(
    settings: Settings, frames: int, size: tuple[int, int], key: tuple[int, ...]
) -> tuple[list[int], list[int]]:
    """Draw the frame numbers and the crop box of a training clip of a video at 25 frames per second."""
    from vidtl.data.clip_samplers import FRAME_RULES

    from vidtl.data.sampling import train_box
    from vidtl.runtime.seeding import generator

    config, rng = experiment(settings), generator(*key)
    indices = FRAME_RULES[config.clip.sampling](np.arange(frames) / 25, config.clip, rng)
    return indices.tolist(), list(train_box(*size, config.augmentation, config.clip, rng))


def build(settings: Settings, num_classes: int = 5) -> Any:
    """Build a model with fresh weights from torch's global generator, for evaluation."""
    from vidtl.models import build_model

    config = experiment(settings)
    return build_model(config.model, config.clip, num_classes).eval()


def token_maps(model: Any, input_BTCHW: torch.Tensor) -> torch.Tensor | None:
    """Compute where TokenLearner looks; None for models without it."""
    from vidtl.errors import UserError

    with contextlib.suppress(UserError, AttributeError):
        return model.token_maps(input_BTCHW)
    return None


def recorded_name(parameter: str) -> str:
    """Return the name that a parameter had when the snapshot was recorded."""
    return parameter


def listed_parameters() -> dict[str, int]:
    """Count the parameters of all models that have a name, with frames of 224 pixels where these fit."""
    import vidtl

    sizes = {"16at18 L/10": (220, 220)}
    with torch.device("meta"), _WithoutInitialization():
        models = {
            name: vidtl.create_model(name, frame_size=sizes.get(name, (224, 224))) for name in vidtl.list_models()
        }
    return {name: sum(parameter.numel() for parameter in model.parameters()) for name, model in models.items()}


class _WithoutInitialization(TorchFunctionMode):
    """Leaves out what fills tensors in place, which takes half of the time even where they have no memory."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__
        if name.endswith("_") and not name.endswith("__") and name != "requires_grad_":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _run_tool(path: Path, arguments: list[str], output: Path) -> None:
    with output.open("wb") as out, output.with_suffix(".err").open("wb") as errors:
        os.dup2(out.fileno(), 1)
        os.dup2(errors.fileno(), 2)
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name="__main__")


class Workplace:
    """A folder with toy data and tiny runs, made by the tools as soon as they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = 0

    def tool(self, name: str, *arguments: object, settings: Settings | None = None) -> tuple[Any, Path]:
        """Run `tools/NAME.py` with these arguments and settings: exit code, and the file of what it printed.

        The script runs as its command runs it, but in a fork of this process, which has the heavy imports done.
        """
        path = RENAMES.name(f"tools/{name}.py")
        self.calls += 1
        output = self.folder / f"{self.calls}-{name}.out"
        if not path:
            return REMOVED, output
        options = [*map(str, arguments), *RENAMES.options(settings or {})]
        process = get_context("fork").Process(target=_run_tool, args=(REPOSITORY / path, options, output))
        process.start()
        process.join()
        return process.exitcode, output

    def done(self, name: str, *arguments: object, settings: Settings | None = None) -> Path:
        """Run a tool that must succeed; returns the file of what it printed."""
        code, output = self.tool(name, *arguments, settings=settings)
        if code != 0:
            raise RuntimeError(f"tools/{name}.py: exit code {code}: {output.with_suffix('.err').read_text()}")
        return output

    @cached_property
    def toy(self) -> Path:
        """Make a small set with one label per video."""
        self.done("make_toy", self.folder / "toy", *self._toy_size)
        return self.folder / "toy"

    @cached_property
    def toy_multilabel(self) -> Path:
        """Make a small set with several labels per video."""
        self.done("make_toy", self.folder / "toy_multilabel", "--multi_label", *self._toy_size)
        return self.folder / "toy_multilabel"

    _toy_size = ("--seed", 3, "--videos_per_class_train", 3, "--videos_per_class_val", 1, "--num_processes", 1)

    def data(self, name: str) -> dict[str, Any]:
        """Return the settings for one of the toy sets."""
        return {"data.dataset": name, "data.root": str(getattr(self, name))}

    def run(self, name: str) -> Path:
        """Train a model with TokenLearner for 20 steps on one of the toy sets; returns the folder of the run."""
        folder = self.folder / f"run-{name}"
        if not folder.is_dir():
            model = section("model.vivit", width=24, depth=2, num_heads=3, temporal_depth=1, tubelet=[4, 8, 8])
            model |= section("model.vivit.token_learner", num_tokens=8, after_block=1)
            training = section("training", batch_size=8, log_every_steps=1, evaluate_every_epochs=0, trackers=[])
            schedule = section("schedule", length="20 steps", warmup="2 steps")
            settings = TINY | self.data(name) | model | training | schedule | {"optimizer.learning_rate": 0.01}
            self.done("train", "--output_dir", folder, settings=settings)
        return folder

    def evaluation(self, name: str, protocol: str) -> Path:
        """Evaluate such a run; returns the folder that holds `metrics.json`."""
        output = self.folder / f"evaluation-{name}"
        arguments = ("--checkpoint", self.run(name), "--output_dir", output, "--html", "false")
        self.done("eval", *arguments, settings={"evaluation.protocol": protocol})
        (metrics,) = output.rglob("metrics.json")
        return metrics.parent


def prepare_process() -> None:
    """Import what takes long, once for all tools, and let them find their shared modules."""
    sys.path.insert(0, str(REPOSITORY / "tools"))
    torch.set_num_threads(1)
    slow = ("accelerate", "av", "cv2", "docstring_parser", "huggingface_hub.hub_mixin", "jinja2", "jsonargparse")
    for module in (*slow, "matplotlib.pyplot", "rich.progress", "torchmetrics", "torchvision"):
        with contextlib.suppress(ImportError):
            __import__(module)
