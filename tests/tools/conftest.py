"""Small toy sets, models with random weights, and the tools in subprocesses."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_set import ToySettings, make_toy

from tests.environment import ENVIRONMENT, REPOSITORY, launch_command
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model, save_model_directory
from vidtl.runtime.progress import Progress


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    return [
        *("--config", str(REPOSITORY / "configs/toy.yaml")),
        *("--clip.num_frames", "8", "--clip.stride", "2", "--clip.frame_size", "[32,32]", "--clip.short_side", "36"),
        *("--model.width", "24", "--model.depth", "2", "--model.temporal_depth", "1"),
        *("--training.batch_size", "8", "--schedule.warmup", "0.5 epochs"),
    ]


@pytest.fixture(scope="session")
def two_steps(tiny: list[str]) -> list[str]:
    return [*tiny, "--schedule.length", "2 steps", "--schedule.warmup", "0 steps", "--training.trackers", "[]"]


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("toy"), videos_per_class_train=4)


@pytest.fixture(scope="session")
def toy_multilabel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("toy_multilabel"), videos_per_class_train=3, multi_label=True)


def make_set(folder: Path, **settings: Any) -> Path:
    """Generate toy videos, by default with 2 validation videos per class."""
    toy = ToySettings(**{"seed": 3, "videos_per_class_val": 2, **settings})
    make_toy(folder, toy, Progress(visible=False), num_processes=1)
    return folder


CLASS_FOLDERS = "format: class_folders\nlabels: single\nsplits: {train: {videos: train}, val: {videos: val}}\n"
"""A description of class folders."""


def copy_videos(root: Path, videos: dict[str, Path]) -> None:
    for place, video in videos.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(video, root / place)


@pytest.fixture(scope="session")
def random_model() -> Callable[..., Path]:
    """Save a model of eight classes with random weights: its folder."""

    def save(folder: Path, num_tokens: int = 8, model: Any = None, elastic: bool = False, **attributes: Any) -> Path:
        clip = ClipConfig(num_frames=8, stride=2, frame_size=(32, 32), short_side=36)
        stage = TokenLearnerConfig(num_tokens=num_tokens, after_block=1, elastic=elastic)
        size = ModelConfig(width=24, depth=2, temporal_depth=1, num_heads=3, tubelet=(4, 8, 8), token_learner=stage)
        model = model or build_model(size, clip, 8)
        torch.manual_seed(0)
        for parameter in model.parameters():  # a fresh head is zero
            torch.nn.init.normal_(parameter, std=0.3)
        for name, value in attributes.items():
            setattr(model, name, value)
        save_model_directory(model, folder)
        return folder

    return save


@pytest.fixture(scope="session")
def untrained_model(random_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def launch() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`accelerate launch` of a tool with a launch configuration of the project."""

    def run(config: str, tool: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
        command = launch_command(config, "--quiet", REPOSITORY / f"tools/{tool}.py", *options)
        return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)

    return run
