"""Run the paths that need a GPU, check their results and measure them: a table and one JSON file.

    python -m benchmarks.gpu --output gpu.json                    all sections, each of at most 4 minutes on a GPU
    python -m benchmarks.gpu --sections training,attention
    python -m benchmarks.gpu --small                              a rehearsal on the CPU in under 2 minutes

Videos are generated. Without a GPU, sizes are small and every item is marked as not run on one. A section that fails
has the line of its error, the others go on, and the exit code is 1. On a machine that has PyTorch, timm and
transformers but no network, carry the repository with wheels for its version of Python, here 3.12:

    python -m pip download --no-deps --only-binary=:all: --python-version 3.12 --dest wheels av vit-pytorch
    python -m pip install --no-index --no-deps --target site wheels/*.whl && PYTHONPATH=site python -m benchmarks.gpu
"""

import argparse
import gc
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from rich.console import Console
from rich.table import Table
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.contenders import NUM_CLASSES, PEERS, Contender, Sizes, our_contenders, peer_contenders
from benchmarks.gpu_training import Kit, Row, compiled, data_path, resumed, sharded
from vidtl.config.checks import require, require_choice
from vidtl.runtime.logging import installed_versions
from vidtl.runtime.seeding import seed_torch
from vidtl.runtime.signals import run_tool
from vidtl.runtime.timing import describe_machine, measure_seconds, peak_flops
from vidtl.training.model_setup import compile_model
from vidtl.training.run_directory import git_state

ROUNDS = 3
LARGE_GPU = 70 * 2**30  # bytes of memory from which a batch of 32 fits every model


def sizes(kit: Kit) -> Sizes:
    """Return B/16x2 on 32 frames of 224 x 224, or a tiny model."""
    if kit.small:
        return Sizes(size="Ti", depth=2, num_frames=4, frame_size=64)
    memory = torch.cuda.get_device_properties(kit.device).total_memory
    return Sizes(batch=32 if memory > LARGE_GPU else 8)


def models(kit: Kit) -> Iterator[Row]:
    """Measure training steps of ours with 0, 8 and 16 tokens after a quarter of the depth, and of other libraries."""
    for contender in our_contenders(sizes(kit), quarters=(1,)):
        yield steps_of(kit, contender)
    for peer in PEERS:
        contenders, missing = peer_contenders(sizes(kit), [peer])
        for name in missing:
            yield {"item": name, "result": f"not run: {PEERS[name][0]} is not installed"}
        while contenders:  # one at a time on the device
            yield steps_of(kit, contenders.pop())


def compiled_models(kit: Kit) -> Iterator[Row]:
    """Train with compiled blocks, and measure the steps of our models with them."""
    yield from compiled(kit)
    if kit.small:
        yield {"item": "steps of compiled models", "result": "not run: minutes of compilation on a CPU"}
        return
    for contender in our_contenders(sizes(kit), quarters=(1,)):
        compile_model(contender.model, "blocks", kit.device)
        yield steps_of(kit, contender)


def steps_of(kit: Kit, contender: Contender) -> Row:
    """Measure forward, backward and update in bf16 on random clips, medians of `ROUNDS`."""
    seed_torch(0)
    size, model = sizes(kit), contender.model.to(kit.device)
    clips_BTCHW = torch.randn(size.batch, size.num_frames, 3, size.frame_size, size.frame_size, device=kit.device)
    targets_B = torch.randint(NUM_CLASSES, (size.batch,), device=kit.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast(kit.device.type, torch.bfloat16):
            logits_BK = model(clips_BTCHW)
        F.cross_entropy(logits_BK.float(), targets_B).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    on_gpu = kit.device.type == "cuda"
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
        "peak GiB": round(torch.cuda.max_memory_allocated() / 2**30, 2) if on_gpu else None,
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
    for (name, shape), kernel in ((shape, kernel) for shape in shapes.items() for kernel in kernels):
        seed_torch(0)
        layout = {"device": kit.device, "dtype": torch.bfloat16, "requires_grad": True}
        qkv = [torch.randn(shape[0], shape[1], 12, 64, **layout) for _ in range(3)]  # type: ignore[call-overload]
        heads_first = [tensor.transpose(1, 2) for tensor in qkv]
        row: Row = {"item": f"{name} {shape[0]} x {shape[1]}", "kernel": kernel.name.partition("_")[0].lower()}
        row["by default"] = "yes" if torch._fused_sdp_choice(*heads_first) == kernel.value else ""

        def passes(qkv: Sequence[torch.Tensor] = qkv, heads_first: Sequence[torch.Tensor] = heads_first) -> Any:
            out = F.scaled_dot_product_attention(*heads_first)
            return torch.autograd.grad(out, qkv, torch.ones_like(out))

        try:
            with sdpa_kernel(kernel):
                pairs = zip(passes(), passes(), strict=True)
                repeats = all(torch.equal(one, other) for one, other in pairs)
                seconds = statistics.median(measure_seconds(passes, kit.device) for _ in range(ROUNDS))
        except RuntimeError as error:
            yield row | {"result": f"not run: {one_line(error).partition('. ')[0]}"}
            continue
        flops = 3.5 * 4 * shape[0] * 12 * shape[1] ** 2 * 64  # FLOPs: two products forward, five backward
        row["result"] = "gradients repeat bitwise" if repeats else "gradients differ from run to run"
        yield row | {"ms": round(1e3 * seconds, 4), "TFLOP/s": round(flops / seconds / 1e12, 3)}


SECTIONS: dict[str, Callable[[Kit], Iterator[Row]]] = {
    "training": resumed,
    "fsdp": sharded,
    "data": data_path,
    "models": models,
    "compiled": compiled_models,
    "attention": attention,
}


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", default=",".join(SECTIONS), help="comma-separated")
    parser.add_argument("--small", action="store_true", help="tiny sizes, as always without a GPU")
    parser.add_argument("--commit", default="", help="commit of a copy without its repository")
    parser.add_argument("--output", type=Path, help="JSON file, written after every section")
    options = parser.parse_args()
    options.sections = options.sections.split(",")
    for name in options.sections:
        require_choice("--sections", name, list(SECTIONS))
    require(not options.output or options.output.parent.is_dir(), "--output", str(options.output), "a file in a folder")
    return options


def main() -> None:
    options = parse()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    small = options.small or device.type == "cpu"
    report = {
        "command": f"python -m benchmarks.gpu --sections {','.join(options.sections)}{' --small' * small}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": options.commit or git_state(Path(__file__).parent),
        "machine": describe_machine() | {"driver": driver()},
        "versions": installed_versions(("torch", "vidtl", "accelerate", "av", "transformers", "vit-pytorch", "timm")),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else "not run on a GPU",
        "sections": {},
    }
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    console.print(*(f"{name}: {report[name]}" for name in ("gpu", "commit", "machine", "versions")), sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        kit = Kit(Path(folder), small, device)
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


def driver() -> str | None:
    """Return the version of NVIDIA's driver; None without it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def print_section(console: Console, name: str, section: dict[str, Any]) -> None:
    """Print a line per item, and the error of the section."""
    state = "FAILED" if section["failed"] else "passed"
    table = Table(title=f"\n{name}: {state} in {section['seconds']} s", title_justify="left")
    headings = list(dict.fromkeys(key for row in section["rows"] for key in row if key != "failed"))
    for heading in headings:
        table.add_column(heading)
    for row in section["rows"]:
        table.add_row(*("" if row.get(heading) is None else str(row[heading]) for heading in headings))
    console.print(table)
    if section["error"]:
        console.print(f"error: {section['error']}", markup=False)


if __name__ == "__main__":
    run_tool(main)
