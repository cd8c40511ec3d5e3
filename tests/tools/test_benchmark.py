"""The training benchmark and the profile of a model; tests/models/test_complexity.py has the counts."""

import json

import profile_model
import pytest
from benchmark import TrainingTimes, main, project

from tests.environment import REPOSITORY
from vidtl.runtime.timing import peak_flops

TIMES = TrainingTimes(batch=8, read_s=0.05, step_s=0.02, update_s=0.0008, multiply_adds=82 * 10**9, peak=989e12)


def test_utilization_counts_six_flops_per_multiply_add():
    assert TIMES.utilization == pytest.approx(6 * 82e9 * 400 / 989e12)


def test_the_slower_part_is_the_limit_on_gpus():
    slow_reading = project(TIMES, cores=16, gpus=2)
    assert (slow_reading.reading, slow_reading.computing, slow_reading.together) == pytest.approx((320, 800, 320))
    assert slow_reading.limit == "reading"
    enough_cores = project(TIMES, cores=64, gpus=2)
    assert (enough_cores.together, enough_cores.limit) == (pytest.approx(800), "computing")
    # Both share the cores of a CPU.
    assert project(TIMES, cores=4, gpus=0).together == pytest.approx(4 / (0.05 + 0.0025))


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA A100-SXM4-80GB", 312e12),
     ("NVIDIA A10", 125e12), ("NVIDIA L4", 121e12), ("NVIDIA L40", 181e12), ("NVIDIA L40S", 362e12),
     ("NVIDIA A10G", None), ("AMD EPYC", None)],
)  # fmt: skip
def test_peak_flops_by_the_name_of_the_gpu(name, peak):
    assert peak_flops(name, "bf16") == peak
    assert peak_flops(name, "fp32") is None


def test_the_tool_reports_the_limit_and_writes_every_round(run_main, tmp_path):
    tiny = ["--config", str(REPOSITORY / "configs/toy.yaml"), "--data.root", "/nowhere", "--num_classes", "5"]
    tiny += ["--model.width", "24", "--model.depth", "2", "--clip.num_frames", "8"]
    tiny += ["--training.ema_decay", "0.9", "--data.balance", "loss", "--batch", "2", "--rounds", "1"]
    output, errors = run_main(main, "train", *tiny, "--output", tmp_path / "train.json")
    assert errors == ""
    report = json.loads((tmp_path / "train.json").read_text())
    assert (report["config"]["model"]["depth"], report["config"]["training"]["batch_size"]) == (2, 2)
    assert 0 < report["utilization"] < 1
    assert {name: len(seconds) for name, seconds in report["rounds"].items()} == dict.fromkeys(
        ("read_s", "step_s", "update_s"), 1
    )
    assert f"limit: {report['projection']['limit']}" in output


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--training.trainable", "['head']"), ["parameters without gradient: 1,354,560"]),
        (
            ("--time", "--rounds", "1"),
            [
                *("blocks.0 ... 2", "990,720", "total", "1,355,850", "0.0798", "all parameters are trained"),
                *("78.6% of the multiply-adds", "+11,200 parameters", "forward and backward:"),
            ],
        ),
    ],
)
def test_counts_savings_and_times_are_printed(run_main, options, parts):
    mini_vit = ["--model.architecture", "mini_vit", "--num_classes", "10", "--clip.num_frames", "1"]
    size = ["--clip.frame_size", "[48,48]", "--clip.short_side", "52"]
    output, _ = run_main(profile_model.main, *mini_vit, *size, *options)
    assert [part for part in parts if part not in output] == []
