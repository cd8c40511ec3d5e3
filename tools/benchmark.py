"""Measure training on this machine: reading clips, optimizer steps, and which of the two limits a run.

    python tools/benchmark.py train                                             ViViT-B/16x2 FE, 8 tokens after block 3
    python tools/benchmark.py train --config configs/ssv2_vivit_b_tl8.yaml --training.compile blocks

Clips are read from `data.root` if it exists, otherwise from generated videos with the size and length of those of
Kinetics. Steps are complete: input on the device, augmentation, forward, backward, clipping, optimizer and averaged
weights. Use an idle machine; on a CPU, times are CPU seconds.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from command_line import ExperimentParser, make_experiment, positive, settings_of_file
from torch import Tensor, nn
from toy_clip import Segment, render_clip

from vidtl.annotations.description import load_description, read_records
from vidtl.annotations.records import ClassNames, Records
from vidtl.annotations.video_files import VideoFile, records_of_files
from vidtl.config import ExperimentConfig, ScheduleConfig
from vidtl.config.checks import require
from vidtl.data.batch import ClipBatch, batch_input
from vidtl.data.dataset import collate
from vidtl.data.loader import TrainLoader
from vidtl.models import build_model
from vidtl.models.complexity import count_multiply_adds
from vidtl.runtime.launch import make_accelerator, resolve_precision
from vidtl.runtime.seeding import generator, seed_torch
from vidtl.runtime.signals import run_tool
from vidtl.runtime.timing import describe_machine, describe_measurement, measure_seconds, peak_flops
from vidtl.training.optimizer import peak_learning_rate
from vidtl.training.prefetch import DeviceBatches
from vidtl.training.step import Engine, TrainingTask
from vidtl.video.encoder import encode_video

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs/kinetics400_vivit_b_tl8.yaml"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
KINETICS_CLIPS = 240_000 * 30
"""Clips of Kinetics-400 in 30 epochs."""
PRODUCT = (4096, 768, 3072)
"""Rows, inner and outer width of the matrix product that a CPU step is compared with: an MLP layer of ViT-B."""


@dataclass(frozen=True, kw_only=True)
class TrainingTimes:
    """Medians over the rounds: CPU seconds, except for steps on a GPU.

    `read_s` is for reading, cropping and collating one clip; `step_s` for an optimizer step of `batch` clips on one
    device, `update_s` its part for clipping, optimizer and averaged weights.
    """

    batch: int
    read_s: float
    step_s: float
    update_s: float
    multiply_adds: int
    """Multiply-adds of the forward pass of one clip; a step takes three times as many."""
    peak: float | None
    """FLOP/s of the GPU's data sheet, or of a matrix product in the same run; None for an unknown GPU."""

    @property
    def utilization(self) -> float | None:
        """Model FLOPs utilization (MFU): time of the multiply-adds at the peak over the time of the step."""
        return 6 * self.multiply_adds * self.batch / self.step_s / self.peak if self.peak else None


class Projection(NamedTuple):
    """Clips per second of the whole machine: reading alone, computing alone, both at once."""

    reading: float
    computing: float
    together: float

    @property
    def limit(self) -> str:
        return "reading" if self.reading < self.computing else "computing"


def project(times: TrainingTimes, cores: int, gpus: int) -> Projection:
    """Project the speed of one device to `cores` cores and `gpus` GPUs (0: the cores compute too)."""
    reading = cores / times.read_s
    computing = max(gpus, 1) * times.batch / times.step_s * (1 if gpus else cores)
    together = min(reading, computing) if gpus else 1 / (1 / reading + 1 / computing)
    return Projection(reading, computing, together)


def main() -> None:
    options, config = parse()
    torch.set_num_threads(options.threads)
    data, root = config.data, Path(config.data.root)
    with tempfile.TemporaryDirectory() as folder:
        if root.is_dir():
            records = read_records(load_description(data.dataset, root), data.train_split, root, data.follow_links)
        else:
            records = write_videos(Path(folder), options.num_classes)
        times, rounds = measure(config, records, options.rounds)
    projection = project(times, os.cpu_count() or 1, torch.cuda.device_count())
    print_times(config, times, projection)
    if options.output:
        report = {
            **describe_measurement("tools/benchmark.py", ("accelerate", "av")),
            "config": asdict(config),
            "times": asdict(times),
            "utilization": times.utilization,
            "projection": projection._asdict() | {"limit": projection.limit},
            "rounds": rounds,
        }
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def parse() -> tuple[argparse.Namespace, ExperimentConfig]:
    """Parse the command line; the experiment has one device's batch and the number of steps to time."""
    parser = ExperimentParser("benchmark.py train", "Measure training on this machine.")
    parser.add_argument("command", choices=("train",), help="Part to measure")
    parser.add_argument("--batch", type=positive, default=8, help="Clips per step and device")
    parser.add_argument("--rounds", type=positive, default=3, help="Steps and batches to time, after one to warm up")
    parser.add_argument("--threads", type=positive, default=1, help="Threads on the CPU")
    parser.add_argument("--num_classes", type=positive, default=400, help="Classes of generated videos")
    parser.add_argument("--output", type=Path, help="JSON file to write, with the seconds of every round")
    options = parser.parse_args()
    has_file = any(argument.partition("=")[0] == "--config" for argument in sys.argv)
    config = make_experiment(options.settings, {} if has_file else settings_of_file(DEFAULT_CONFIG))
    if output := options.output:
        require(output.parent.is_dir() and not output.is_dir(), "--output", str(output), "a file")
    schedule = ScheduleConfig(name="constant", length=f"{options.rounds + 1} steps", warmup="0 steps")
    training = replace(config.training, batch_size=options.batch, accumulation_steps=1, init_from="")
    return options, replace(config, schedule=schedule, training=training)


def write_videos(folder: Path, num_classes: int, num_videos: int = 2) -> Records:
    """Generate videos of 10 seconds, 340 x 256 pixels and 25 frames per second, as in Kinetics."""
    videos = [VideoFile(folder / f"{number}.mp4", "video") for number in range(num_videos)]
    for number, video in enumerate(videos):
        rng = generator(0, number)
        motions = [Segment(int(rng.integers(8)), first, first + 49) for first in range(0, 250, 50)]
        encode_video(video.path, render_clip(rng, 256, 340, 25, 250, motions), 25)
    classes = ClassNames(tuple(f"class {number}" for number in range(num_classes)))
    return replace(
        records_of_files(videos, classes, multi_label=False, frame_rate=None),
        label_offsets=np.arange(num_videos + 1, dtype=np.int64),
        label_classes=np.arange(num_videos, dtype=np.int32) % num_classes,
        label_starts_s=np.full(num_videos, -np.inf),
        label_ends_s=np.full(num_videos, np.inf),
    )


def measure(config: ExperimentConfig, records: Records, rounds: int) -> tuple[TrainingTimes, dict[str, list[float]]]:
    """Time reading and steps; also return the seconds of each round."""
    accelerator = make_accelerator(config.training.precision)
    precision = resolve_precision(config.training.precision)
    loader = TrainLoader(records, config, 0, 1)
    reads, batch = time_reading(loader, rounds)
    seed_torch(config.training.seed)
    model = build_model(config.model, config.clip, len(records.classes))
    multiply_adds = count_multiply_adds(model, config.clip)
    nn.init.normal_(model.classifier()[1].weight, std=0.02)  # initially 0, and products with zeros are faster on GPUs
    task = TrainingTask(
        loader=loader,
        make_input=partial(batch_input, clip=config.clip),
        num_classes=len(records.classes),
        multi_label=records.multi_label,
        save_model=lambda model, directory: None,
        class_counts=torch.from_numpy(records.class_counts()),
    )
    steps, updates = time_steps(Engine(model, config, accelerator, task), batch, rounds)
    on_gpu = accelerator.device.type == "cuda"
    peak = peak_flops(torch.cuda.get_device_name(), precision) if on_gpu else product_flops(DTYPES[precision], rounds)
    seconds = {"read_s": reads, "step_s": steps, "update_s": updates}
    medians = {name: median(values) for name, values in seconds.items()}
    batch_size = config.training.batch_size
    return TrainingTimes(batch=batch_size, multiply_adds=multiply_adds, peak=peak, **medians), seconds


def time_reading(loader: TrainLoader, rounds: int) -> tuple[list[float], ClipBatch]:
    """Measure CPU seconds per clip for `rounds` batches after a warm-up; also return the last batch."""
    seconds = []
    dataset = loader.dataset()  # read in this process, whose CPU time is measured
    batches = (collate([dataset[key] for key in loader.keys(*place)]) for place in loader.places(0))
    batch = next(batches)
    for _ in range(rounds):
        begin = time.process_time()
        batch = next(batches)
        seconds.append((time.process_time() - begin) / len(batch.weights))
    return seconds, batch


def time_steps(engine: Engine, batch: ClipBatch, rounds: int) -> tuple[list[float], list[float]]:
    """Measure the seconds of steps on one batch, and of clipping, optimizer and averaged weights alone."""
    device = engine.accelerator.device
    rate = 1e-3 * peak_learning_rate(engine.config.optimizer, engine.config.training.batch_size)  # same batch each step
    ahead = DeviceBatches(repeat(batch), device)
    zero = torch.zeros((), device=device)
    steps, updates = [], []

    def update(gradients: list[tuple[nn.Parameter, Tensor]]) -> None:
        for parameter, gradient in gradients:
            parameter.grad = gradient
        engine.update(1, rate, zero)

    for _ in range(rounds + 1):
        steps.append(measure_seconds(lambda: engine.step(1, rate, ahead), device))
        gradients = [(p, torch.full_like(p, 1e-4)) for p in engine.model.parameters() if p.requires_grad]
        updates.append(measure_seconds(partial(update, gradients), device))
    return steps[1:], updates[1:]


def product_flops(dtype: torch.dtype, rounds: int) -> float:
    """Measure the FLOP/s of a matrix product on the CPU; fastest round."""
    rows, inner, outer = PRODUCT
    left, right = torch.ones(rows, inner, dtype=dtype), torch.ones(inner, outer, dtype=dtype)
    out = left @ right
    product = partial(torch.mm, left, right, out=out)
    seconds = [measure_seconds(product, torch.device("cpu")) for _ in range(rounds + 1)]
    return 2 * rows * inner * outer / min(seconds[1:])


def print_times(config: ExperimentConfig, times: TrainingTimes, projection: Projection) -> None:
    """Print the times, the limit and the projection."""
    machine: dict[str, Any] = describe_machine()
    gpus = torch.cuda.device_count()
    reference = "of the GPU's data sheet (MFU)" if gpus else "of a matrix product in the same run"
    share = "unknown" if times.utilization is None else f"{times.utilization:.1%}"
    print(
        f"{machine['device']}, {machine['cores']} cores, {gpus} GPU(s), load {machine['load_average']:.1f}",
        f"{config.model.architecture}, {times.multiply_adds / 1e9:.4g} GMAC per clip, {times.batch} clips per step, "
        f"precision {resolve_precision(config.training.precision)}, compile {config.training.compile}",
        f"FLOP/s of a step: {share} {reference}",
        f"clipping, optimizer and averaged weights: {times.update_s / times.step_s:.1%} of the step",
        f"reading: {1 / times.read_s:.3g} clips/s per core",
        f"steps: {times.batch / times.step_s:.3g} clips/s per {'GPU' if gpus else 'core'}",
        f"limit: {projection.limit} (all cores read {projection.reading:.3g} clips/s, "
        f"{'all GPUs' if gpus else 'the same cores'} compute {projection.computing:.3g})",
        f"Kinetics-400 for 30 epochs at {projection.together:.3g} clips/s: "
        f"{KINETICS_CLIPS / projection.together / 3600:,.3g} hours",
        sep="\n",
    )


if __name__ == "__main__":
    run_tool(main)
