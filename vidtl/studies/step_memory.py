"""Memory of a training step, each variant in a process of its own: on a CPU a process keeps what earlier ones left."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import nn

from vidtl.config import ExperimentConfig
from vidtl.studies.step import build_variant, random_clips, train_step
from vidtl.training.run_summary import peak_resident_bytes


def measure_step_memory(
    experiments: Sequence[ExperimentConfig], num_classes: int, batch_size: int, device: torch.device
) -> list[int | None]:
    """Bytes at the peak of a forward and backward pass in float32: weights, gradients, activations and workspace.

    On a GPU what torch has allocated. On a CPU what the process holds more than before the step, which comes after a
    step of one clip that has loaded all code; within some percent, and `None` on systems that do not tell.
    """
    start = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=start, max_tasks_per_child=1) as pool:
        calls = [pool.submit(step_memory, each, num_classes, batch_size, device) for each in experiments]
        return [call.result() for call in calls]


def step_memory(experiment: ExperimentConfig, num_classes: int, batch_size: int, device: torch.device) -> int | None:
    """The figure of one variant; to be called in a fresh process."""
    torch.set_num_threads(1)
    model = build_variant(experiment, num_classes, device)
    train_step(model, random_clips(experiment.clip, 1, device))
    clips_BTCHW = random_clips(experiment.clip, batch_size, device)
    if device.type == "cuda":
        before: int | None = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        train_step(model, clips_BTCHW)
        after: int | None = torch.cuda.max_memory_allocated(device)
    else:
        before = resident_bytes()
        train_step(model, clips_BTCHW)
        after = peak_resident_bytes()
    return None if before is None or after is None else max(after - before, 0) + _weights(model)


def _weights(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def resident_bytes() -> int | None:
    """Resident memory of this process (VmRSS); None on systems other than Linux."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(values[0]) * 1024 if values else None
