"""Time our models beside those of other libraries, in turns in one run.

    python -m benchmarks.model                                      all models, sizes that suit this machine
    python -m benchmarks.model --precision bf16 --peers --rounds 9  our models only
    python -m benchmarks.model --depth 12 --batch 16 --compile --output results.json

Training steps (forward and backward, no optimizer) and forward passes of ViViT-B/16x2 on clips of 32 x 224 x 224 take
turns with those of Hugging Face, vit-pytorch and timm (`pip install -e .[bench]`). On a CPU only ratios are printed.
"""

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
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
from vidtl.runtime.launch import resolve_precision
from vidtl.runtime.logging import installed_versions
from vidtl.runtime.seeding import seed_torch
from vidtl.runtime.signals import run_tool
from vidtl.runtime.timing import describe_machine, measure_seconds, peak_flops

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Rounds:
    """Seconds of each round by model, without the warm-up round."""

    train: dict[str, list[float]] = field(default_factory=dict)
    """Forward and backward pass of a batch, without optimizer."""
    forward: dict[str, list[float]] = field(default_factory=dict)
    """Forward pass of a batch in evaluation."""
    peak_bytes: dict[str, int] = field(default_factory=dict)
    """Weights, activations and gradients of a training step (GPU only)."""


def parse() -> tuple[argparse.Namespace, Sizes]:
    """Parse the command line."""
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    precisions = ["bf16", "fp32"] if on_gpu else ["fp32"]
    parser.add_argument("--precision", nargs="+", choices=list(AUTOCAST), default=precisions, help="one run of each")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every model, after one to warm up")
    parser.add_argument("--depth", type=int, default=12 if on_gpu else 4, help="blocks of every model")
    parser.add_argument("--batch", type=int, default=16 if on_gpu else 1, help="clips per step")
    parser.add_argument("--threads", type=int, default=1, help="threads on the CPU")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS), help="other libraries")
    parser.add_argument("--size", choices=list(SIZES), default="B", help="width and heads")
    parser.add_argument("--num_frames", type=int, default=32, help="frames per clip")
    parser.add_argument("--frame_size", type=int, default=224, help="side of the frames in pixels")
    parser.add_argument("--compile", action="store_true", help="wrap all models in torch.compile")
    parser.add_argument("--output", type=Path, help="JSON file to write, with the seconds of every round")
    options = parser.parse_args()
    for name in ("rounds", "threads"):
        require(getattr(options, name) >= 1, f"--{name}", getattr(options, name), "1 or more")
    require(not options.output or options.output.parent.is_dir(), "--output", str(options.output), "a file in a folder")
    for precision in options.precision:
        resolve_precision(precision)
    sizes = {name: getattr(options, name) for name in ("size", "depth", "batch", "num_frames", "frame_size")}
    return options, Sizes(**sizes)


def main() -> None:
    options, sizes = parse()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    seed_torch(0)
    peers, missing = peer_contenders(sizes, options.peers)
    contenders = [*our_contenders(sizes), *peers]
    models = {contender.key: contender.model.to(device) for contender in contenders}
    if options.compile:
        torch._dynamo.config.recompile_limit = 64  # models of one class share compiled code, each with its own guards
        models = {key: torch.compile(model) for key, model in models.items()}  # type: ignore[misc]
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    report: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks.model", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": installed_versions(("torch", "vidtl", "transformers", "vit-pytorch", "timm")),
        "settings": asdict(sizes) | {"rounds": options.rounds, "compile": options.compile},
        "left_out": missing,
        "results": {},
    }
    console.print(*(f"{name}: {report[name]}" for name in ("machine", "versions", "settings", "left_out")), sep="\n")
    for precision in dict.fromkeys(options.precision):
        if options.compile:  # einops compiles again once it has met all kinds of tensors
            run_rounds(models, sizes, device, AUTOCAST[precision], num_rounds=0)
        rounds = run_rounds(models, sizes, device, AUTOCAST[precision], options.rounds)
        results = summarize(contenders, rounds, sizes.batch, peak_flops(report["machine"]["device"], precision))
        report["results"][precision] = results
        print_results(console, precision, results, device.type == "cuda")
        if options.output:
            options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def run_rounds(
    models: Mapping[str, nn.Module], sizes: Sizes, device: torch.device, autocast: torch.dtype | None, num_rounds: int
) -> Rounds:
    """Time all models once per round, after one round to warm up, in alternating order."""
    clips_BTCHW = torch.randn(sizes.batch, sizes.num_frames, 3, sizes.frame_size, sizes.frame_size, device=device)
    targets_B = torch.randint(NUM_CLASSES, (sizes.batch,), device=device)
    actions = [
        (kind, name, partial(_pass, model, clips_BTCHW, targets_B, autocast, kind == "train"))
        for name, model in models.items()
        for kind in ("train", "forward")
    ]
    result = Rounds()
    for number in range(num_rounds + 1):
        for kind, name, action in actions if number % 2 else reversed(actions):
            if number == 0 and device.type == "cuda" and kind == "train":
                result.peak_bytes[name] = _peak_bytes(action, models[name])
            seconds = measure_seconds(action, device)
            if number:
                getattr(result, kind).setdefault(name, []).append(seconds)
    return result


def _pass(model: nn.Module, clips: Tensor, targets: Tensor, autocast: torch.dtype | None, with_gradient: bool) -> None:
    model.train(with_gradient)
    precision = torch.autocast(clips.device.type, autocast) if autocast else nullcontext()
    with torch.set_grad_enabled(with_gradient):
        with precision:
            logits_BK = model(clips)
        if with_gradient:
            F.cross_entropy(logits_BK.float(), targets).backward()
            model.zero_grad(set_to_none=True)


def _peak_bytes(step: Callable[[], object], model: nn.Module) -> int:
    """Measure the memory of a step without the weights of other models, after a step that compiles."""
    step()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    return torch.cuda.max_memory_allocated() - before + weights


def summarize(
    contenders: Sequence[Contender], rounds: Rounds, batch: int, gpu_peak: float | None
) -> dict[str, dict[str, Any]]:
    """Compute medians over the rounds and their ratios to the first contender.

    `mfu` is the model FLOPs utilization, None without a data sheet.
    """

    def figures(times: dict[str, list[float]], key: str, multiply_adds: int) -> dict[str, Any]:
        seconds = statistics.median(times[key])
        return {
            "seconds": seconds,
            "time_ratio": seconds / statistics.median(times[contenders[0].key]),
            "mfu": 2 * multiply_adds * batch / seconds / gpu_peak if gpu_peak else None,
            "rounds": times[key],
        }

    return {
        each.key: {
            "title": each.title,
            "multiply_adds": each.multiply_adds,
            "train_multiply_adds": each.train_multiply_adds,
            "multiply_add_ratio": each.multiply_adds / contenders[0].multiply_adds,
            "peak_bytes": rounds.peak_bytes.get(each.key),
            "train": figures(rounds.train, each.key, each.train_multiply_adds),
            "forward": figures(rounds.forward, each.key, each.multiply_adds),
        }
        for each in contenders
    }


def print_results(console: Console, precision: str, results: Mapping[str, dict[str, Any]], on_gpu: bool) -> None:
    """Print a line per model; times only on a GPU."""
    headings = ["GMAC", "ratio", "train time ratio", "forward time ratio"]
    headings += ["train ms", "forward ms", "train MFU", "peak GiB"] * on_gpu
    table = Table("model", title=f"\nprecision {precision}", title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right")
    for each in results.values():
        train, forward = each["train"], each["forward"]
        cells = [f"{each['multiply_adds'] / 1e9:.2f}", f"{each['multiply_add_ratio']:.3f}"]
        cells += [f"{train['time_ratio']:.3f}", f"{forward['time_ratio']:.3f}"]
        if on_gpu:
            cells += [f"{1e3 * train['seconds']:.1f}", f"{1e3 * forward['seconds']:.1f}"]
            cells += [f"{train['mfu']:.1%}" if train["mfu"] else "", f"{each['peak_bytes'] / 2**30:.2f}"]
        table.add_row(each["title"], *cells)
    console.print(table)
    console.print("ratios: to the first row")


if __name__ == "__main__":
    run_tool(main)
