"""Compare the times of our models with those of other libraries, in turns in one run on a CPU, in float32.

    python -m benchmarks.model --depth 12 --output results.json
    python -m benchmarks.model --peers --rounds 9                  our models only

Training steps (forward and backward, no optimizer) and forward passes of ViViT-B/16x2 on clips of 32 x 224 x 224 take
turns with those of Hugging Face, vit-pytorch and timm (`pip install -e .[bench]`). `benchmarks.gpu` is for GPUs.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.contenders import NUM_CLASSES, PEERS, SIZES, Contender, Sizes, our_contenders, peer_contenders
from vidtl.config.checks import require
from vidtl.runtime.seeding import seed_torch
from vidtl.runtime.signals import run_tool
from vidtl.runtime.timing import describe_measurement, measure_seconds

Rounds = dict[str, dict[str, list[float]]]
"""Seconds of each round by pass (`train`: forward and backward without optimizer, `forward`) and model."""


def parse() -> tuple[argparse.Namespace, Sizes]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of every model, after one to warm up")
    parser.add_argument("--depth", type=int, default=4, help="blocks of every model")
    parser.add_argument("--batch", type=int, default=1, help="clips per step")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS), help="other libraries")
    parser.add_argument("--size", choices=list(SIZES), default="B", help="width and heads")
    parser.add_argument("--num_frames", type=int, default=32, help="frames per clip")
    parser.add_argument("--frame_size", type=int, default=224, help="side of the frames in pixels")
    parser.add_argument("--output", type=Path, help="JSON file to write, with the seconds of every round")
    options = parser.parse_args()
    require(options.rounds >= 1, "--rounds", options.rounds, "1 or more")
    require(not options.output or options.output.parent.is_dir(), "--output", str(options.output), "a file in a folder")
    sizes = {name: getattr(options, name) for name in ("size", "depth", "batch", "num_frames", "frame_size")}
    return options, Sizes(**sizes)


def main() -> None:
    options, sizes = parse()
    torch.set_num_threads(1)
    seed_torch(0)
    peers, missing = peer_contenders(sizes, options.peers)
    contenders = [*our_contenders(sizes), *peers]
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    report: dict[str, Any] = {
        **describe_measurement("-m benchmarks.model", ("transformers", "vit-pytorch", "timm")),
        "settings": asdict(sizes) | {"rounds": options.rounds},
        "left_out": missing,
    }
    console.print(*(f"{name}: {value}" for name, value in report.items() if name != "command"), sep="\n")
    rounds = run_rounds({each.key: each.model for each in contenders}, sizes, options.rounds)
    report["results"] = summarize(contenders, rounds)
    print_results(console, report["results"])
    if options.output:
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def run_rounds(models: Mapping[str, nn.Module], sizes: Sizes, num_rounds: int) -> Rounds:
    """Time all models once per round, after one round to warm up, in alternating order."""
    clips_BTCHW = torch.randn(sizes.batch, sizes.num_frames, 3, sizes.frame_size, sizes.frame_size)
    targets_B = torch.randint(NUM_CLASSES, (sizes.batch,))
    actions = [
        (kind, name, partial(_pass, model, clips_BTCHW, targets_B, kind == "train"))
        for name, model in models.items()
        for kind in ("train", "forward")
    ]
    result: Rounds = {"train": {}, "forward": {}}
    for number in range(num_rounds + 1):
        for kind, name, action in actions if number % 2 else reversed(actions):
            seconds = measure_seconds(action, clips_BTCHW.device)
            if number:
                result[kind].setdefault(name, []).append(seconds)
    return result


def _pass(model: nn.Module, clips: Tensor, targets: Tensor, with_gradient: bool) -> None:
    model.train(with_gradient)
    with torch.set_grad_enabled(with_gradient):
        logits_BK = model(clips)
    if with_gradient:
        F.cross_entropy(logits_BK, targets).backward()
        model.zero_grad(set_to_none=True)


def summarize(contenders: Sequence[Contender], rounds: Rounds) -> dict[str, dict[str, Any]]:
    """Compute medians over the rounds and their ratios to the first contender."""

    def figures(times: dict[str, list[float]], key: str) -> dict[str, Any]:
        seconds = statistics.median(times[key])
        ratio = seconds / statistics.median(times[contenders[0].key])
        return {"seconds": seconds, "time_ratio": ratio, "rounds": times[key]}

    return {
        each.key: {
            "title": each.title,
            "multiply_adds": each.multiply_adds,
            "train_multiply_adds": each.train_multiply_adds,
            "multiply_add_ratio": each.multiply_adds / contenders[0].multiply_adds,
            "train": figures(rounds["train"], each.key),
            "forward": figures(rounds["forward"], each.key),
        }
        for each in contenders
    }


def print_results(console: Console, results: Mapping[str, dict[str, Any]]) -> None:
    """Print a line per model."""
    table = Table("model", title="ratios to the first row")
    for heading in ("GMAC", "ratio", "train time ratio", "forward time ratio"):
        table.add_column(heading, justify="right")
    for each in results.values():
        ratios = (each["multiply_add_ratio"], each["train"]["time_ratio"], each["forward"]["time_ratio"])
        table.add_row(each["title"], f"{each['multiply_adds'] / 1e9:.2f}", *(f"{ratio:.3f}" for ratio in ratios))
    console.print(table)


if __name__ == "__main__":
    run_tool(main)
