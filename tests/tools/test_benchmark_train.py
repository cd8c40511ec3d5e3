"""The benchmark of training: its arithmetic, and the tool as a user runs it."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.environment import REPOSITORY
from vidtl.benchmark.figures import gpu_peak
from vidtl.benchmark.training import TrainingTimes, prepare_videos, project, write_videos
from vidtl.video import open_video

TIMES = TrainingTimes(batch=8, read_s=0.05, step_s=0.02, update_s=0.0008, multiply_adds=82 * 10**9, peak=989e12)


@pytest.fixture(autouse=True)
def _same_number_of_threads() -> Iterator[None]:
    """The tool sets it for its process, which here is also that of other tests."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_utilisation_counts_six_flops_per_multiply_add_and_step() -> None:
    assert TIMES.utilisation == pytest.approx(6 * 82e9 * 400 / 989e12)
    assert TIMES.update_share == pytest.approx(0.04)


def test_on_gpus_the_slower_part_is_the_limit() -> None:
    """The aim of the project: 800 clips a second take Kinetics-400 through 30 epochs in 2.5 hours."""
    slow_reading = project(TIMES, cores=16, gpus=2)
    assert (slow_reading.reading, slow_reading.computing, slow_reading.together) == pytest.approx((320, 800, 320))
    assert slow_reading.limit == "reading"
    enough_cores = project(TIMES, cores=64, gpus=2)
    assert (enough_cores.together, enough_cores.limit) == (pytest.approx(800), "computing")
    assert enough_cores.kinetics_hours == pytest.approx(2.5)


def test_on_a_cpu_both_share_the_cores() -> None:
    """Each clip costs a core 0.05 s of reading and 0.0025 s of computing."""
    assert project(TIMES, cores=4, gpus=0).together == pytest.approx(4 / 0.0525)


def test_prepared_videos_are_the_same_clips_faster(tmp_path: Path) -> None:
    """Faster is shown by the benchmark; here, that other files with the same frames and labels are read."""
    originals = write_videos(tmp_path, 3)
    copies = prepare_videos(tmp_path)
    assert [copies.path(i).name for i in range(2)] == [originals.path(i).name for i in range(2)]
    assert (copies.path(0).parent, originals.path(0).parent) == (tmp_path / "copies", tmp_path)
    assert np.array_equal(copies.label_classes, originals.label_classes)
    for i in range(2):
        with (
            open_video(originals.path(i), "pyav", tmp_path) as one,
            open_video(copies.path(i), "pyav", tmp_path) as other,
        ):
            assert np.allclose(one.times_s, other.times_s)


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA A10", 125e12),
     ("NVIDIA L4", 121e12), ("NVIDIA L40", 181e12), ("NVIDIA L40S", 362e12), ("NVIDIA A10G", None),
     ("NVIDIA GeForce RTX 4090", None)],
)  # fmt: skip
def test_gpus_are_known_by_their_names(name: str, peak: float | None) -> None:
    assert gpu_peak(name, "bf16") == peak
    assert gpu_peak(name, "no") is None


TINY = (
    *("--config", str(REPOSITORY / "configs/toy.yaml"), "--data.root", "/nowhere", "--num_classes", "5"),
    *("--model.vivit.width", "24", "--model.vivit.depth", "2", "--clip.num_frames", "8", "--training.ema_decay", "0.9"),
    *("--batch", "2", "--rounds", "1"),
)


def test_the_tool_tells_what_limits_a_run(run_main, tmp_path) -> None:
    from benchmark import main

    output = tmp_path / "train.json"
    code, told, errors = run_main(main, "train", *TINY, "--output", output)
    assert (code, errors) == (0, "")
    report = json.loads(output.read_text())
    assert report["command"].startswith("python tools/benchmark.py train --config ")
    assert (report["config"]["model"]["vivit"]["depth"], report["config"]["training"]["batch_size"]) == (2, 2)
    assert 0 < report["utilisation"] < 1
    assert report["update_share"] > 0
    assert {name: len(seconds) for name, seconds in report["rounds"].items()} == dict.fromkeys(
        ("read_s", "step_s", "update_s"), 1
    )
    assert f"limit here: {report['projection']['limit']}" in told
    assert "clipping, optimizer and average: " in told
    assert "Kinetics-400 for 30 epochs at " in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--rounds", "0"), "--rounds is 0; allowed: 1 or more"),
        (("train", "--optimizer.nam", "sgd"), "unknown option --optimizer.nam; did you mean '--optimizer.name'?"),
        (("model", "--optimizer.name", "sgd"), "unknown option --optimizer.name; see --help"),
    ],
)
def test_mistakes_are_one_line(run_main, arguments: tuple[str, ...], message: str) -> None:
    from benchmark import main

    code, _, errors = run_main(main, *arguments)
    assert (code, errors.count("\n")) == (2, 1)
    assert message in errors
