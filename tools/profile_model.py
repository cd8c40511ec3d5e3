"""What a model costs: parameters, multiply-adds and activation memory per block, what TokenLearner saves, and time.

A configuration:   python tools/profile_model.py --config configs/kinetics400_vivit_b_tl8.yaml
With changes:      python tools/profile_model.py --model.size L --model.token_learner.after_block 6 --time

Nothing is computed for the counts, so that the largest model takes seconds; only `--time` runs the model.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import groupby

from command_line import ExperimentParser, parse_experiment

from vidtl.config import ExperimentConfig
from vidtl.config.checks import require
from vidtl.errors import UserError
from vidtl.runtime.signals import exit_on_error, run_tool


def parse() -> tuple[argparse.Namespace, ExperimentConfig]:
    """Parse the command line."""
    parser = ExperimentParser("profile_model.py", "Count and time what a model costs.")
    parser.add_argument("--num_classes", type=int, default=400, help="Classes of the classifier")
    parser.add_argument("--time", action="store_true", help="Also time every block on this machine")
    parser.add_argument("--batch", type=int, default=1, help="Clips per pass with --time")
    parser.add_argument("--rounds", type=int, default=5, help="Passes with --time; the median is told")
    return parse_experiment(parser)


if __name__ == "__main__":
    with exit_on_error():  # mistakes, and --help, end here and do not wait for the imports below
        parse()

import torch
from rich.console import Console
from rich.table import Table

from vidtl.models import build_model
from vidtl.models.complexity import (
    Complexity,
    StageCost,
    count_parameters,
    measure_complexity,
    time_passes,
    time_stages,
    without_token_learner,
)
from vidtl.runtime.launch import resolve_precision
from vidtl.runtime.seeding import seed_torch
from vidtl.training.model_setup import freeze_all_but

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
UNIT = "GMAC: billions of multiply-adds of one clip's forward pass (papers call them GFLOPs; FLOPs are twice as many)"


def main() -> None:
    options, config = parse()
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    check(options, {name.removeprefix("--").partition("=")[0] for name in sys.argv[1:] if name.startswith("--")})
    autocast = AUTOCAST[resolve_precision(config.training.precision)]
    cost = measure_complexity(config.model, config.clip, options.num_classes, autocast)
    times = measure_times(config, options, autocast) if options.time else {}
    print_stages(console, config, cost, times)
    print_frozen(console, config, options.num_classes)
    twin = without_token_learner(config.model)
    if twin is not None:
        print_saving(console, cost, measure_complexity(twin, config.clip, options.num_classes, autocast))
    if options.time:
        print_times(console, cost, times, options.batch)


def check(options: argparse.Namespace, given: set[str]) -> None:
    """Refuse `--batch` and `--rounds` without `--time`, and values below 1."""
    for name in ("batch", "rounds"):
        if name in given and not options.time:
            raise UserError(f"--{name} belongs to --time; allowed with --time")
        require(getattr(options, name) >= 1, f"--{name}", getattr(options, name), "1 or more")


def print_stages(console: Console, config: ExperimentConfig, cost: Complexity, times: dict[str, float]) -> None:
    """One line per block; neighbouring blocks that cost the same share a line."""
    clip = config.clip
    size = f"{clip.num_frames} x {clip.frame_size[0]} x {clip.frame_size[1]}"
    table = Table(title=f"{config.model.architecture}, clips of {size}", title_justify="left")
    table.add_column("part")
    headings = ["number", "parameters", "GMAC", "share", "saved MB"] + ["forward ms"] * bool(times)
    for heading in headings:
        table.add_column(heading, justify="right")
    for stages in equal_neighbours(cost.stages):
        multiply_adds = sum(stage.multiply_adds for stage in stages)
        cells = [
            f"{len(stages)}",
            f"{sum(stage.parameters for stage in stages):,}",
            f"{multiply_adds / 1e9:.4f}",
            f"{multiply_adds / max(cost.multiply_adds, 1):.1%}",
            f"{sum(stage.saved_bytes for stage in stages) / 1e6:.2f}",
        ]
        if times:
            cells.append(f"{1e3 * sum(times.get(stage.name, 0.0) for stage in stages):.2f}")
        table.add_row(name_of(stages), *cells)
    table.add_section()
    total = ["", f"{cost.parameters:,}", f"{cost.multiply_adds / 1e9:.4f}", "", f"{cost.saved_bytes / 1e6:.2f}"]
    table.add_row("total", *total, *([f"{1e3 * times['forward']:.2f}"] if times else []))
    console.print(table)
    console.print(UNIT)
    console.print("saved: activations kept for the backward pass, per clip, by the part that keeps them first")


def print_frozen(console: Console, config: ExperimentConfig, num_classes: int) -> None:
    """How many parameters `training.trainable` and the model itself leave out of the training."""
    with torch.device("meta"):
        model = build_model(config.model, config.clip, num_classes)
    freeze_all_but(model, config.training.trainable)
    frozen = count_parameters(model) - count_parameters(model, trainable_only=True)
    console.print(f"parameters without gradient: {frozen:,}" if frozen else "all parameters are trained")
    if config.training.trainable:
        console.print("saved and times are those of a training of the whole model")


def equal_neighbours(stages: tuple[StageCost, ...]) -> Iterator[list[StageCost]]:
    """Stages that cost something; those in a row that differ in nothing but their number come together."""

    def kind(stage: StageCost) -> tuple[object, ...]:
        return (re.sub(r"\d+", "#", stage.name), stage.parameters, stage.multiply_adds, stage.saved_bytes)

    paid = [stage for stage in stages if stage.parameters or stage.multiply_adds or stage.saved_bytes]
    for _, group in groupby(paid, key=kind):
        yield list(group)


def name_of(stages: list[StageCost]) -> str:
    """`encoder.blocks.0 ... 11` for twelve stages, the name of a single one."""
    first, last = stages[0].name, stages[-1].name
    return first if first == last else f"{first} ... {last.rpartition('.')[2]}"


def print_saving(console: Console, cost: Complexity, plain: Complexity) -> None:
    """What TokenLearner saves against the same model without it."""
    console.print(
        f"without TokenLearner: {plain.multiply_adds / 1e9:.4f} GMAC, {plain.saved_bytes / 1e6:.2f} MB saved; "
        f"with it {cost.multiply_adds / plain.multiply_adds:.1%} of the multiply-adds, "
        f"{cost.saved_bytes / plain.saved_bytes:.1%} of the memory, "
        f"{cost.parameters - plain.parameters:+,} parameters"
    )


def measure_times(
    config: ExperimentConfig, options: argparse.Namespace, autocast: torch.dtype | None
) -> dict[str, float]:
    """Seconds of each stage, and under `forward` and `train` those of whole passes, undisturbed."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    seed_torch(config.training.seed)
    model = build_model(config.model, config.clip, options.num_classes).to(device)
    clips = torch.randn(options.batch, config.clip.num_frames, 3, *config.clip.frame_size, device=device)
    with torch.autocast(device.type, autocast) if autocast else nullcontext():
        times = time_stages(model, clips, options.rounds)
        times["forward"], times["train"] = time_passes(model, clips, options.rounds)
    return times


def print_times(console: Console, cost: Complexity, times: dict[str, float], batch: int) -> None:
    """Speeds of whole passes, with the arithmetic that they amount to."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} thread(s)"
    console.print(f"{device}, {batch} clip(s) per pass, median")
    for name, passes, title in (("forward", 1, "forward"), ("train", 3, "forward and backward")):
        seconds = times[name] / batch
        speed = 2 * passes * cost.multiply_adds / seconds / 1e9
        console.print(f"{title}: {1 / seconds:.2f} clips/s, {1e3 * seconds:.1f} ms per clip, {speed:.0f} GFLOP/s")


if __name__ == "__main__":
    run_tool(main)
