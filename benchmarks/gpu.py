"""Run the paths that need a GPU, check their results and measure them: a table and one JSON file.

    python -m benchmarks.gpu --output gpu.json          all sections, each of at most 4 minutes on a GPU
    python -m benchmarks.gpu --sections data,models

Videos are generated. Without a GPU, or with --small, it is a rehearsal of tiny sizes in under 2 minutes. A section that
fails has the line of its error, the others go on, and the exit code is 1. To a machine with PyTorch, timm and
transformers but no network, carry the repository with wheels for its version of Python, here 3.12:

    python -m pip download --no-deps --only-binary=:all: --python-version 3.12 --dest wheels av vit-pytorch
    python -m pip install --no-index --no-deps --target site wheels/*.whl && PYTHONPATH=site python -m benchmarks.gpu
"""

import argparse
import gc
import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from rich.console import Console
from rich.table import Table
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.contenders import NUM_CLASSES, PEERS, Contender, Sizes, our_contenders, peer_contenders
from benchmarks.gpu_training import Kit, Row, beside_plain, data_path, trainings
from vidtl.config.checks import require, require_choice
from vidtl.runtime.signals import run_tool
from vidtl.runtime.timing import describe_measurement, measure_seconds, peak_flops
from vidtl.training.model_setup import compile_model
from vidtl.training.run_directory import git_state

ROUNDS = 3
DRIVER = "nvidia-smi --query-gpu=driver_version --format=csv,noheader"


def sizes(kit: Kit) -> Sizes:
    """Return B/16x2 on 32 frames of 224 x 224, in batches that fit every model, or a tiny model."""
    if kit.small:
        return Sizes(size="Ti", depth=2, num_frames=4, frame_size=64)
    return Sizes(batch=32 if torch.cuda.get_device_properties(0).total_memory > 70 * 2**30 else 8)


def models(kit: Kit) -> Iterator[Row]:
    """Measure training steps of ours with 0, 8 and 16 tokens after a quarter of the depth, and of other libraries."""
    for contender in our_contenders(sizes(kit), quarters=(1,)):
        yield steps_of(kit, contender)
    for peer in PEERS:
        contenders, missing = peer_contenders(sizes(kit), [peer])
        yield from ({"item": name, "result": f"not run: {PEERS[name][0]} is not installed"} for name in missing)
        while contenders:  # one at a time on the device
            yield steps_of(kit, contenders.pop())


def compiled_models(kit: Kit) -> Iterator[Row]:
    """Train with compiled blocks, and measure the steps of our models with them."""
    yield from beside_plain(kit, "compiled blocks", kit.config(compile="blocks"))
    if kit.small:
        yield {"item": "steps of compiled models", "result": "not run: minutes of compilation on a CPU"}
    for contender in () if kit.small else our_contenders(sizes(kit), quarters=(1,)):
        torch.compiler.reset()  # without the shapes of the models before
        compile_model(contender.model, "blocks", kit.device)
        yield steps_of(kit, contender)


def steps_of(kit: Kit, contender: Contender) -> Row:
    """Measure forward, backward and update in bf16 on random clips, medians of `ROUNDS`."""
    gc.collect()
    on_gpu, size = kit.device.type == "cuda", sizes(kit)
    before = torch.cuda.memory_allocated() if on_gpu else 0
    model = contender.model.to(kit.device).train()
    clips_BTCHW = torch.randn(size.batch, size.num_frames, 3, size.frame_size, size.frame_size, device=kit.device)
    targets_B = torch.randint(NUM_CLASSES, (size.batch,), device=kit.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast(kit.device.type, torch.bfloat16):
            logits_BK = model(clips_BTCHW)
        F.cross_entropy(logits_BK.float(), targets_B).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    step()
    seconds = statistics.median(measure_seconds(step, kit.device) for _ in range(ROUNDS))
    peak = peak_flops(torch.cuda.get_device_name(), "bf16") if on_gpu else None
    flops = 2 * contender.train_multiply_adds * size.batch / seconds
    return {
        "item": contender.title.strip(),
        "result": "done",
        "GMAC": round(contender.multiply_adds / 1e9, 4),
        "batch": size.batch,
        "clips/s": round(size.batch / seconds, 2),
        "MFU": round(flops / peak, 4) if peak else None,
        "peak GiB": round((torch.cuda.max_memory_allocated() - before) / 2**30, 2) if on_gpu else None,
    }


def attention(kit: Kit) -> Iterator[Row]:
    """Measure forward and backward pass of each kernel at the shapes of B/16x2, and compare two backward passes."""
    batch, timesteps, tokens = (1, 2, 16) if kit.small else (sizes(kit).batch, 16, 196)
    shapes = {
        "spatial": (batch * timesteps, tokens),
        "spatial, 8 tokens": (batch * timesteps, 8),
        "temporal": (batch, timesteps),
        "temporal at each place": (batch * tokens, timesteps),
        "joint": (max(1, batch // 8), timesteps * tokens),
    }
    kernels = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH)
    for (name, shape), kernel in itertools.product(shapes.items(), kernels):
        item = f"{name}, {shape[0]} x {shape[1]}, {kernel.name.partition('_')[0].lower()}"
        try:
            yield {"item": item} | time_kernel(kit.device, *shape, kernel)
        except RuntimeError as error:
            yield {"item": item, "result": f"not run: {one_line(error).partition('. ')[0]}"}


def time_kernel(device: torch.device, sequences: int, length: int, kernel: SDPBackend) -> Row:
    """Measure 12 heads of width 64 in bf16, in the memory layout of the models; RuntimeError without this kernel."""
    qkv = torch.randn(3, sequences, length, 12, 64, device=device, dtype=torch.bfloat16, requires_grad=True)
    heads = qkv.transpose(2, 3).unbind()

    def passes() -> tuple[torch.Tensor, ...]:
        out = F.scaled_dot_product_attention(*heads)
        return torch.autograd.grad(out, heads, torch.ones_like(out))

    default = torch._fused_sdp_choice(*heads) == kernel.value
    with sdpa_kernel(kernel):
        repeats = all(map(torch.equal, passes(), passes()))
        seconds = statistics.median(measure_seconds(passes, device) for _ in range(ROUNDS))
    flops = 3.5 * 4 * sequences * 12 * length**2 * 64  # two products forward, five backward
    row = {"result": "gradients repeat bitwise" if repeats else "gradients differ from run to run"}
    row["default"] = "yes" if default else "no"
    return row | {"ms": round(1e3 * seconds, 4), "TFLOP/s": round(flops / seconds / 1e12, 3)}


SECTIONS: dict[str, Callable[[Kit], Iterator[Row]]] = {
    "training": trainings,
    "fsdp": lambda kit: beside_plain(kit, "FSDP2", kit.config(), sharded=True),
    "data": data_path,
    "models": models,
    "compiled": compiled_models,
    "attention": attention,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", type=lambda text: text.split(","), default=list(SECTIONS), help="comma-separated")
    parser.add_argument("--small", action="store_true", help="tiny sizes, as always without a GPU")
    parser.add_argument("--commit", default="", help="commit of a copy without its repository")
    parser.add_argument("--output", type=Path, help="JSON file, written after every section")
    options = parser.parse_args()
    for name in options.sections:
        require_choice("--sections", name, list(SECTIONS))
    require(not options.output or options.output.parent.is_dir(), "--output", str(options.output), "a file in a folder")
    small = not (on_gpu := torch.cuda.is_available()) or options.small
    head = describe_measurement("", ("accelerate", "av", "transformers", "vit-pytorch", "timm"))
    report = head | {
        "command": f"python -m benchmarks.gpu --sections {','.join(options.sections)}{' --small' * small}",
        "commit": options.commit or git_state(Path(__file__).parent),
        "machine": head["machine"] | {"driver": subprocess.getoutput(DRIVER) if on_gpu else None},
        "gpu": torch.cuda.get_device_name() if on_gpu else "not run on a GPU",
        "sections": {},
    }
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    console.print(*(f"{name}: {report[name]}" for name in ("gpu", "commit", "machine", "versions")), sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        kit = Kit(Path(folder), small, torch.device("cuda" if on_gpu else "cpu"))
        for name in options.sections:
            section = report["sections"][name] = run_section(kit, name, report["gpu"])
            print_section(console, name, section)
            if options.output:
                options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if any(section["failed"] for section in report["sections"].values()):
        sys.exit(1)


def run_section(kit: Kit, name: str, where: str) -> dict[str, Any]:
    """Run a section; the line of its error, if any, is kept beside the rows before it."""
    begin, rows, error = time.perf_counter(), [], None
    try:
        rows.extend({**row, "on": where} for row in SECTIONS[name](kit))
    except Exception as failure:
        error = f"{type(failure).__name__}: {one_line(failure)}"
    gc.collect()
    if kit.device.type == "cuda":
        torch.cuda.empty_cache()  # for the processes of later sections
    failed = bool(error) or any(row.get("failed") for row in rows)
    return {"seconds": round(time.perf_counter() - begin, 1), "failed": failed, "error": error, "rows": rows}


def one_line(error: Exception) -> str:
    """Return the first line of an error without folders of this machine."""
    return re.sub(r"(?:/[\w.+-]+)+/", ".../", str(error).strip().partition("\n")[0])


def print_section(console: Console, name: str, section: dict[str, Any]) -> None:
    """Print a line per item, and the error of the section."""
    table = Table(title=f"{name}: {'FAILED' if section['failed'] else 'passed'} in {section['seconds']} s")
    headings = dict.fromkeys(key for row in section["rows"] for key in row if key != "failed")
    for heading in headings:
        table.add_column(heading)
    for row in section["rows"]:
        table.add_row(*("" if row.get(heading) is None else str(row[heading]) for heading in headings))
    console.print(table)
    console.print(section["error"] or "", markup=False)


if __name__ == "__main__":
    run_tool(main)
