"""What training steps and the data path cost on this machine, what limits a run, and how long Kinetics-400 would take.

    python tools/benchmark.py train                                             ViViT-B/16x2 FE, 8 tokens after block 3
    python tools/benchmark.py train --config configs/ssv2_vivit_b_tl8.yaml --training.compile blocks

Any configuration and any `--section.key value` may follow. Clips are read from `data.root` where it exists, else from
generated videos of Kinetics' usual shape (`--prepared`: from copies of them, as tools/prepare.py makes them). Steps are
whole ones: input on the device, augmentation, forward, backward, clipping, optimizer and, where the run has one, the
average of the weights.
"""

import argparse
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from command_line import ExperimentParser, parse_experiment
from rich.console import Console

from vidtl.benchmark.figures import gpu_peak
from vidtl.benchmark.machine import describe_machine
from vidtl.benchmark.training import (
    MFU_GOAL,
    SHARE_GOAL,
    Projection,
    TrainingTimes,
    make_engine,
    prepare_videos,
    product_speed,
    project,
    time_reading,
    time_steps,
    write_videos,
)
from vidtl.config import ExperimentConfig, ScheduleConfig
from vidtl.data.description import load_description, read_records
from vidtl.data.loader import TrainLoader
from vidtl.data.records import Records
from vidtl.errors import UserError
from vidtl.models import build_model
from vidtl.models.complexity import count_multiply_adds
from vidtl.runtime.launch import make_accelerator, resolve_precision
from vidtl.runtime.seeding import seed_torch
from vidtl.runtime.versions import installed_versions

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs/kinetics400_vivit_b_tl8.yaml"
PACKAGES = ("torch", "vidtl", "accelerate", "av")
DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="configuration of the run")
    parser.add_argument("--batch", type=int, default=8, help="clips per step and device")
    parser.add_argument("--rounds", type=int, default=3, help="steps and batches timed after one to warm up")
    parser.add_argument("--threads", type=int, default=1, help="threads on the CPU")
    parser.add_argument("--num_classes", type=int, default=400, help="classes, where videos are generated")
    parser.add_argument("--prepared", action="store_true", help="read copies of the generated videos that decode fast")
    parser.add_argument("--output", type=Path, help="JSON file to write, with every round's seconds")


def main(options: argparse.Namespace) -> None:
    """Measure, print and write."""
    for name in ("batch", "rounds", "threads", "num_classes"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}; allowed: 1 or more")
    torch.set_num_threads(options.threads)
    arguments = ["--config", str(options.config), *options.settings]
    config = on_one_device(parse_experiment(ExperimentParser("benchmark.py train", ""), arguments)[1], options)
    with ExitStack() as stack:
        records = records_of(config, options, stack)
        times, rounds = measure(config, records, options)
    gpus = torch.cuda.device_count()
    projection = project(times, os.cpu_count() or 1, gpus)
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    show(console, config, times, projection, gpus)
    if options.output:
        report = report_of(config, times, projection) | {"rounds": rounds}
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def on_one_device(config: ExperimentConfig, options: argparse.Namespace) -> ExperimentConfig:
    """The share of a run that one device has, reading in this process, for as many steps as are timed."""
    return replace(
        config,
        data=replace(config.data, num_workers=0),
        schedule=ScheduleConfig(name="constant", length=f"{options.rounds + 1} steps", warmup="0 steps"),
        training=replace(config.training, batch_size=options.batch, accumulation_steps=1, init_from=""),
    )


def records_of(config: ExperimentConfig, options: argparse.Namespace, stack: ExitStack) -> Records:
    """The training split where it lies on this machine, else generated videos that live as long as `stack`."""
    root = Path(config.data.root)
    if root.is_dir() and options.prepared:
        raise UserError(
            f"--prepared is for generated videos, and data.root {root} is there; give its copies as data.root"
        )
    if root.is_dir():
        return read_records(load_description(config.data.dataset), config.data.train_split, root)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    records = write_videos(folder, options.num_classes)
    return prepare_videos(folder) if options.prepared else records


def measure(
    config: ExperimentConfig, records: Records, options: argparse.Namespace
) -> tuple[TrainingTimes, dict[str, list[float]]]:
    """Everything, and the seconds of each round."""
    accelerator = make_accelerator(config.training.precision)
    precision = resolve_precision(config.training.precision)
    reads, batch = time_reading(TrainLoader(records, config, 0, 1), options.rounds)
    seed_torch(config.training.seed)
    model = build_model(config.model, config.clip, len(records.classes))
    multiply_adds = count_multiply_adds(model, config.clip)
    engine = make_engine(model, config, records, accelerator)
    steps, updates = time_steps(engine, batch, options.rounds)
    on_gpu = accelerator.device.type == "cuda"
    data_sheet = gpu_peak(torch.cuda.get_device_name(), precision) if on_gpu else None
    times = TrainingTimes(
        batch=options.batch,
        read_s=median(reads),
        step_s=median(steps),
        update_s=median(updates),
        multiply_adds=multiply_adds,
        peak=product_speed(DTYPES[precision], options.rounds) if not on_gpu else data_sheet or float("nan"),
    )
    return times, {"read_s": reads, "step_s": steps, "update_s": updates}


def show(console: Console, config: ExperimentConfig, times: TrainingTimes, projection: Projection, gpus: int) -> None:
    """The figures, the limit and the projection in sentences."""
    machine = describe_machine()
    console.print(f"{machine['device']}, {machine['cores']} cores, {gpus} GPU(s), load {machine['load_average']:.1f}")
    console.print(
        f"{config.model.architecture}, {times.multiply_adds / 1e9:.4g} GMAC per clip, {times.batch} clips per step, "
        f"precision {resolve_precision(config.training.precision)}, compile {config.training.compile}"
    )
    what = "of the GPU's data sheet (MFU)" if gpus else "of a matrix product in the same run"
    console.print(f"step: {times.utilisation:.1%} {what}" + (f"; goal {MFU_GOAL:.0%}" if gpus else ""))
    console.print(
        f"clipping, optimizer and average: {times.update_share:.1%} of the step "
        f"(goal for B/16x2 at 8 clips a step: at most {SHARE_GOAL:.0%})"
    )
    console.print(f"reading a clip: {1 / times.read_s:.3g} clips/s per core")
    console.print(f"a step: {times.batch / times.step_s:.3g} clips/s per {'GPU' if gpus else 'core'}")
    console.print(
        f"limit here: {projection.limit} (all cores read {projection.reading:.3g} clips/s, "
        f"the {'GPUs' if gpus else 'same cores'} compute {projection.computing:.3g})"
    )
    console.print(
        f"Kinetics-400 for 30 epochs at {projection.together:.3g} clips/s: {projection.kinetics_hours:,.3g} hours"
    )


def report_of(config: ExperimentConfig, times: TrainingTimes, projection: Projection) -> dict[str, Any]:
    """What a reader needs to judge the figures or to measure them again."""
    return {
        "command": " ".join(["python", "tools/benchmark.py", *sys.argv[1:]]),
        "machine": describe_machine(),
        "versions": installed_versions(PACKAGES),
        "config": asdict(config),
        "times": asdict(times),
        "update_share": times.update_share,
        "utilisation": times.utilisation,
        "projection": asdict(projection) | {"limit": projection.limit, "kinetics_hours": projection.kinetics_hours},
    }
