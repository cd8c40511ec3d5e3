"""Timing of code for benchmarks, and the machine that it was timed on."""

import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from vidtl.runtime.logging import installed_versions

GPU_PEAKS = {"H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12}
GPU_PEAKS |= {"A100": 312e12, "A10": 125e12, "L40S": 362e12, "L40": 181e12, "L4": 121e12, "RTX 4090": 165e12}
"""FLOP/s of dense bf16 matrix products by words of the device name, longer names first (NVIDIA's data sheets)."""

CUDA_REPEATS = 10  # a single call on a GPU is too short to measure


def measure_seconds(action: Callable[[], object], device: torch.device) -> float:
    """Measure one call: with CUDA events on a GPU, elsewhere as CPU time, which excludes other processes."""
    if device.type == "cuda":
        start: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(device)
        start.record()
        for _ in range(CUDA_REPEATS):
            action()
        end.record()
        torch.cuda.synchronize(device)
        return float(start.elapsed_time(end)) / 1e3 / CUDA_REPEATS
    begin = time.process_time()
    action()
    return time.process_time() - begin


def peak_flops(device_name: str, precision: str) -> float | None:
    """Look up the FLOP/s of a GPU's data sheet; None for other devices and precisions."""
    if precision != "bf16":
        return None
    return next((peak for name, peak in GPU_PEAKS.items() if re.search(rf"\b{name}\b", device_name)), None)


def describe_measurement(tool: str, packages: Sequence[str] = ()) -> dict[str, Any]:
    """Return command line, date, machine and versions: the head of a file of measurements."""
    return {
        "command": shlex.join(["python", *tool.split(), *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": installed_versions(("torch", "vidtl", *packages)),
    }


def describe_machine() -> dict[str, Any]:
    """Return device, processor, threads and current load."""
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else processor_name(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
    }


def processor_name() -> str:
    """Read the model name of the processor from the system, or its architecture."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
