"""What a model costs beside other people's, measured in one run.

    python tools/benchmark.py model                                      everything, sizes that suit this machine
    python tools/benchmark.py model --precision bf16 --peers --rounds 9  our models only
    python tools/benchmark.py model --depth 12 --batch 16 --compile --output results.json

Training steps (forward and backward, no optimizer) and forward passes of ViViT-B/16x2 on clips of 32 x 224 x 224 take
turns with those of Hugging Face, vit-pytorch and timm (`pip install -e .[bench]`) and with bare matrix products.
"""

import argparse
import json
import shlex
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from vidtl.benchmark.contenders import PEERS, BenchmarkSettings, Contender, compiled, our_contenders, peer_contenders
from vidtl.benchmark.figures import Figures, figures_of, goals_of, gpu_peak, product_speeds
from vidtl.benchmark.machine import cpu_multiplies_bf16, describe_machine
from vidtl.benchmark.rounds import Rounds, run_rounds
from vidtl.errors import UserError
from vidtl.models.variants import SIZES
from vidtl.runtime.launch import resolve_precision
from vidtl.runtime.seeding import seed_torch
from vidtl.runtime.versions import installed_versions

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
PACKAGES = ("torch", "vidtl", "transformers", "vit-pytorch", "timm")


def add_options(model: argparse.ArgumentParser) -> None:
    """The options of the command."""
    on_gpu = torch.cuda.is_available()
    model.add_argument(
        "--precision", nargs="+", choices=list(AUTOCAST), default=default_precisions(), help="one run of each"
    )
    model.add_argument("--rounds", type=int, default=5, help="turns of every model after one to warm up")
    model.add_argument("--depth", type=int, default=12 if on_gpu else 4, help="blocks of every model")
    model.add_argument("--batch", type=int, default=16 if on_gpu else 1, help="clips per step")
    model.add_argument("--threads", type=int, default=1, help="threads on the CPU")
    model.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS), help="libraries to compare with")
    model.add_argument("--size", choices=list(SIZES), default="B", help="width and heads")
    model.add_argument("--num_frames", type=int, default=32, help="frames per clip")
    model.add_argument("--frame_size", type=int, default=224, help="side of the frames in pixels")
    model.add_argument("--compile", action="store_true", help="all models through torch.compile")
    model.add_argument("--output", type=Path, help="JSON file to write, with every round's seconds")


def default_precisions() -> list[str]:
    """float32, and bf16 where it is not emulated, which takes ten times as long and tells nothing."""
    return ["bf16", "fp32"] if torch.cuda.is_available() or cpu_multiplies_bf16() else ["fp32"]


def main(options: argparse.Namespace) -> None:
    """Measure, print and write."""
    for name in ("rounds", "threads"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}; allowed: 1 or more")
    for precision in options.precision:
        resolve_precision(precision)
    settings = BenchmarkSettings(
        size=options.size,
        depth=options.depth,
        batch=options.batch,
        num_frames=options.num_frames,
        frame_size=options.frame_size,
    )
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    seed_torch(0)
    peers, left_out = peer_contenders(settings, options.peers)
    contenders = [*our_contenders(settings), *peers]
    models = {c.key: (compiled(c) if options.compile else c.model).to(device) for c in contenders}
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    report = describe(settings, options, left_out)
    print_start(console, report)
    for precision in dict.fromkeys(options.precision):
        if options.compile:  # what was compiled first is compiled again, as einops has met new kinds of tensors since
            run_rounds(models, settings, device, AUTOCAST[precision], num_rounds=0)
        rounds = run_rounds(models, settings, device, AUTOCAST[precision], options.rounds)
        figures = figures_of(contenders, rounds, settings, gpu_peak(report["machine"]["device"], precision))
        report["results"][precision] = as_json(figures, rounds, settings, precision)
        print_figures(console, figures, rounds, settings, precision)
        if options.output:
            options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def describe(settings: BenchmarkSettings, options: argparse.Namespace, left_out: list[str]) -> dict[str, Any]:
    """What a reader needs to judge the figures or to measure them again."""
    return {
        "command": shlex.join(["python", "tools/benchmark.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": installed_versions(PACKAGES),
        "settings": asdict(settings) | {"rounds": options.rounds, "compile": options.compile},
        "left_out": left_out,
        "results": {},
    }


def as_json(figures: list[Figures], rounds: Rounds, settings: BenchmarkSettings, precision: str) -> dict[str, Any]:
    """Everything measured in one precision and what follows from it."""
    return {
        "product_gflops": {name: speed / 1e9 for name, speed in product_speeds(rounds, settings).items()},
        "product_seconds": rounds.products,
        "models": {entry.contender.key: model_as_json(entry, rounds) for entry in figures},
        "goals": [asdict(goal) | {"reached": goal.reached} for goal in goals_of(figures, settings, precision)],
    }


def model_as_json(entry: Figures, rounds: Rounds) -> dict[str, Any]:
    contender: Contender = entry.contender
    return {
        "title": contender.title.strip(),
        "multiply_adds": contender.multiply_adds,
        "train_multiply_adds": contender.train_multiply_adds,
        "multiply_add_ratio": entry.multiply_add_ratio,
        "overhead": entry.overhead if contender.num_learned_tokens else None,
        "peak_bytes": entry.peak_bytes,
        "train": asdict(entry.train) | {"rounds": rounds.train[contender.key]},
        "forward": asdict(entry.forward) | {"rounds": rounds.forward[contender.key]},
    }


def print_start(console: Console, report: dict[str, Any]) -> None:
    machine, versions, settings = report["machine"], report["versions"], report["settings"]
    console.print(f"{machine['device']}, {machine['threads']} of {machine['cores']} cores, {report['date']}")
    console.print(", ".join(f"{name} {version}" for name, version in versions.items()))
    if machine["cpu_multiplies_bf16"] is False and not torch.cuda.is_available():
        console.print(
            "this processor has no instructions for bf16; in that precision its figures tell nothing", style="yellow"
        )
    size = f"{settings['num_frames']} x {settings['frame_size']} x {settings['frame_size']}"
    console.print(
        f"{settings['size']}/16x2, {settings['depth']} blocks, {settings['batch']} clip(s) of {size} per step, "
        f"medians of {settings['rounds']} rounds{', compiled' if settings['compile'] else ''}"
    )
    for peer in report["left_out"]:
        console.print(f"left out: {peer} ({PEERS[peer][0]} is not installed)", style="yellow")


def print_figures(
    console: Console, figures: list[Figures], rounds: Rounds, settings: BenchmarkSettings, precision: str
) -> None:
    """A line per model, then the matrix products and the goals."""
    on_gpu = bool(rounds.peak_bytes)
    headings = ["GMAC", "train time", "of products", "forward time", "of products", "time/GMAC", "FE is faster"]
    table = Table(title=f"\nprecision {precision}", title_justify="left")
    table.add_column("model")
    for heading in headings + ["train ms", "forward ms", "train MFU", "peak GiB"] * on_gpu:
        table.add_column(heading, justify="right")
    for entry in figures:
        table.add_row(entry.contender.title, *cells(entry), *(gpu_cells(entry) if on_gpu else []))
    console.print(table)
    console.print("times: ratios to the factorised encoder; of products: speed against the fastest matrix product")
    speeds = product_speeds(rounds, settings)
    fastest, slowest = max(speeds, key=speeds.__getitem__), min(speeds, key=speeds.__getitem__)
    speed = f" at {speeds[fastest] / 1e12:.0f} TFLOP/s" if on_gpu else ""
    console.print(
        f"fastest product: {fastest}{speed}; slowest: {slowest}, {speeds[slowest] / speeds[fastest]:.0%} of it"
    )
    for goal in goals_of(figures, settings, precision):
        verdict = "reached" if goal.reached else "MISSED"
        console.print(f"{verdict}: {goal.title} {goal.value:.3f} ({'>=' if goal.at_least else '<='} {goal.limit:g})")


def cells(entry: Figures) -> list[str]:
    learned = entry.contender.num_learned_tokens
    return [
        f"{entry.contender.multiply_adds / 1e9:.2f}",
        f"{entry.train.time_ratio:.3f}",
        f"{entry.train.product_share:.0%}",
        f"{entry.forward.time_ratio:.3f}",
        f"{entry.forward.product_share:.0%}",
        f"{entry.overhead:.3f}" if learned else "",
        f"{entry.train.time_ratio:.2f} x" if not learned and entry.train.time_ratio != 1 else "",
    ]


def gpu_cells(entry: Figures) -> list[str]:
    share = entry.train.flop_share
    return [
        f"{1e3 * entry.train.seconds:.1f}",
        f"{1e3 * entry.forward.seconds:.1f}",
        "" if share is None else f"{share:.1%}",
        f"{(entry.peak_bytes or 0) / 2**30:.2f}",
    ]
