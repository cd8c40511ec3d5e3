"""A small toy set, and the tools run as a user runs them: in this process, or as processes of their own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vidtl.data.toy import ToySettings, make_toy
from vidtl.runtime.progress import make_progress

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Options of a run that takes seconds."""
    return [
        *("--config", str(REPOSITORY / "configs/toy.yaml")),
        *("--clip.num_frames", "8", "--clip.stride", "2", "--clip.frame_size", "[32,32]", "--clip.short_side", "36"),
        *("--model.vivit.width", "24", "--model.vivit.depth", "2", "--model.vivit.temporal_depth", "1"),
        *("--training.batch_size", "8", "--schedule.warmup", "0.5 epochs"),
    ]


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    settings = ToySettings(seed=3, videos_per_class_train=4, videos_per_class_val=2)
    make_toy(folder, settings, make_progress(is_main_process=False), num_processes=1)
    return folder


@pytest.fixture(scope="session")
def toy_multilabel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy_multilabel")
    settings = ToySettings(seed=3, videos_per_class_train=3, videos_per_class_val=2, multi_label=True)
    make_toy(folder, settings, make_progress(is_main_process=False), num_processes=1)
    return folder


@pytest.fixture(scope="session")
def launch() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`accelerate launch` of a tool with one of the project's launch configurations, in processes of its own."""

    def run(config: str, tool: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet"]
        command += ["--config_file", str(REPOSITORY / f"configs/accelerate/{config}.yaml")]
        command += [str(REPOSITORY / f"tools/{tool}.py"), *map(str, options)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)

    return run


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a tool's `main` in this process: exit code, standard output and standard error."""

    def run(main: Callable[[], None], *options: str | Path) -> tuple[int, str, str]:
        from vidtl.runtime.launch import run_tool

        monkeypatch.setattr(sys, "argv", ["tool", *map(str, options)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            run_tool(main)
        output = capfd.readouterr()
        return int(stopped.value.code or 0), output.out, output.err

    return run
