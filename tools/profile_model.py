"""Print the cost of a model: parameters, multiply-adds and activation memory per block, savings of TokenLearner, time.

A configuration:   python tools/profile_model.py --config configs/kinetics400_vivit_b_tl8.yaml
With changes:      python tools/profile_model.py --model.size L --model.token_learner.after_block 6 --time
Published weights: python tools/profile_model.py --pretrained MCG-NJU/videomae-base --model.token_learner.num_tokens 8

The counts need no computation: the largest model takes seconds. Only `--time` runs the model.
"""

import re
import sys
from argparse import Namespace
from contextlib import nullcontext
from dataclasses import replace
from itertools import groupby

from command_line import ExperimentParser, make_experiment, parse_experiment, positive

from vidtl.config import ExperimentConfig
from vidtl.errors import UserError
from vidtl.runtime.signals import exit_on_error, run_tool


def parse() -> tuple[Namespace, ExperimentConfig]:
    parser = ExperimentParser("profile_model.py", "Count and time what a model costs.")
    text = "The model of published weights: a file, a directory, or owner/name on the hub of Hugging Face"
    parser.add_argument("--pretrained", metavar="NAME", help=text)
    text = "Classes of the classifier (default: those of the weights, or 400)"
    parser.add_argument("--num_classes", type=positive, help=text)
    parser.add_argument("--time", action="store_true", help="Also time every block on this machine")
    parser.add_argument("--batch", type=positive, default=1, help="Clips per pass with --time")
    parser.add_argument("--rounds", type=positive, default=5, help="Passes with --time, for the median")
    options, config = parse_experiment(parser)
    given = {argument.partition("=")[0] for argument in sys.argv}
    for name in ("batch", "rounds"):
        if f"--{name}" in given and not options.time:
            raise UserError(f"--{name} is given without --time; allowed with --time")
    return options, config


if __name__ == "__main__":
    with exit_on_error():  # --help and mistakes end before the slow imports below
        parse()

import torch
from rich.console import Console
from rich.table import Table

from vidtl.models import build_model, complexity
from vidtl.models.complexity import Complexity, StageCost, count_parameters, measure_complexity
from vidtl.models.weights.published import read_published, settings_of_weights
from vidtl.runtime.launch import resolve_precision
from vidtl.runtime.seeding import seed_torch
from vidtl.training.model_setup import freeze_all_but

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def main() -> None:
    options, config = parse()
    classes = 400
    if options.pretrained:
        published = read_published(options.pretrained)
        config = make_experiment(options.settings, settings_of_weights(published, options.settings))
        classes = published.num_classes or classes
    options.num_classes = classes if options.num_classes is None else options.num_classes
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    autocast = AUTOCAST[resolve_precision(config.training.precision)]
    cost = measure_complexity(config.model, config.clip, options.num_classes, autocast)
    times = measure_times(config, options, autocast) if options.time else {}
    print_stages(console, config, cost, times)
    print_frozen(console, config, options.num_classes)
    if twin := complexity.without_token_learner(config.model):
        print_saving(console, cost, measure_complexity(twin, config.clip, options.num_classes, autocast))
    if options.time:
        print_times(console, cost, times, options.batch)


def print_stages(console: Console, config: ExperimentConfig, cost: Complexity, times: dict[str, float]) -> None:
    """Print a line per block; adjacent blocks of equal cost share a line."""
    size = " x ".join(map(str, (config.clip.num_frames, *config.clip.frame_size)))
    table = Table(title=f"{config.model.architecture}, clips of {size}", title_justify="left")
    table.add_column("part")
    for heading in ["number", "parameters", "GMAC", "share", "saved MB"] + ["forward ms"] * bool(times):
        table.add_column(heading, justify="right")
    for stages in equal_neighbors(cost.stages):
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
    console.print("GMAC: billion multiply-adds of a clip's forward pass (GFLOPs in papers; FLOPs are twice as many)")
    console.print("saved: activations kept for the backward pass, per clip, by the part that keeps them first")


def print_frozen(console: Console, config: ExperimentConfig, num_classes: int) -> None:
    """Print the number of parameters that `training.trainable` and the model leave out of the training."""
    with torch.device("meta"):
        model = build_model(config.model, config.clip, num_classes)
    freeze_all_but(model, config.training.trainable)
    frozen = count_parameters(model) - count_parameters(model, trainable_only=True)
    console.print(f"parameters without gradient: {frozen:,}" if frozen else "all parameters are trained")
    if config.training.trainable:
        console.print("saved and times are those of a training of the whole model")


def equal_neighbors(stages: tuple[StageCost, ...]) -> list[list[StageCost]]:
    """Group adjacent stages that differ only in their number; stages without cost are left out."""
    paid = [stage for stage in stages if stage.parameters or stage.multiply_adds or stage.saved_bytes]
    groups = groupby(paid, key=lambda stage: replace(stage, name=re.sub(r"\d+", "#", stage.name)))
    return [list(group) for _, group in groups]


def name_of(stages: list[StageCost]) -> str:
    """Return `encoder.blocks.0 ... 11` for twelve stages, the name of a single one."""
    first, last = stages[0].name, stages[-1].name
    return first if first == last else f"{first} ... {last.rpartition('.')[2]}"


def print_saving(console: Console, cost: Complexity, plain: Complexity) -> None:
    """Print the savings of TokenLearner against the same model without it."""
    console.print(
        f"without TokenLearner: {plain.multiply_adds / 1e9:.4f} GMAC, {plain.saved_bytes / 1e6:.2f} MB saved; "
        f"with it {cost.multiply_adds / plain.multiply_adds:.1%} of the multiply-adds, "
        f"{cost.saved_bytes / plain.saved_bytes:.1%} of the memory, "
        f"{cost.parameters - plain.parameters:+,} parameters"
    )


def measure_times(config: ExperimentConfig, options: Namespace, autocast: torch.dtype | None) -> dict[str, float]:
    """Measure the seconds of each stage, and under `forward` and `train` those of undisturbed whole passes."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    seed_torch(config.training.seed)
    model = build_model(config.model, config.clip, options.num_classes).to(device)
    clips = torch.randn(options.batch, config.clip.input_frames, 3, *config.clip.frame_size, device=device)
    with torch.autocast(device.type, autocast) if autocast else nullcontext():
        times = complexity.time_stages(model, clips, options.rounds)
        times["forward"], times["train"] = complexity.time_passes(model, clips, options.rounds)
    return times


def print_times(console: Console, cost: Complexity, times: dict[str, float], batch: int) -> None:
    """Print the speeds of whole passes, also in FLOPs per second."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} thread(s)"
    console.print(f"{device}, {batch} clip(s) per pass, median")
    for name, passes, title in (("forward", 1, "forward"), ("train", 3, "forward and backward")):
        seconds = times[name] / batch
        speed = 2 * passes * cost.multiply_adds / seconds / 1e9
        console.print(f"{title}: {1 / seconds:.2f} clips/s, {1e3 * seconds:.1f} ms per clip, {speed:.0f} GFLOP/s")


if __name__ == "__main__":
    run_tool(main)
