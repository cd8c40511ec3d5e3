"""Start of a tool: devices, processes and precision, by Accelerate; the launcher sets the number of processes."""

import ctypes
import logging
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
from accelerate import Accelerator, PartialState, utils
from accelerate.utils import DistributedType, DynamoBackend, FullyShardedDataParallelPlugin, InitProcessGroupKwargs
from torch.distributed.fsdp import MixedPrecisionPolicy

from vidtl.errors import UserError
from vidtl.runtime.watchdog import Activity, activity

Precision = Literal["auto", "fp32", "bf16", "fp16"]
T = TypeVar("T")

_log = logging.getLogger(__name__)

PROCESS_GROUP_TIMEOUT = timedelta(minutes=15)
"""Limit for collectives. Not 10 minutes: Accelerate takes that for its default and drops it; gloo then waits 30."""
FORMS = "MULTI_GPU (also on a CPU), FSDP, or one process"


def resolve_precision(precision: Precision) -> Literal["fp32", "bf16", "fp16"]:
    """Resolve `auto`: bf16 on a GPU with native support, fp32 elsewhere; UserError for fp16 without a GPU."""
    has_gpu = torch.cuda.is_available()
    if precision == "auto":
        return "bf16" if has_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if precision == "fp16" and not has_gpu:
        raise UserError("training.precision is 'fp16' on a machine without a GPU; allowed here: 'auto', 'fp32', 'bf16'")
    return precision


def make_accelerator(precision: Precision) -> Accelerator:
    """Create the Accelerator, on a CPU over gloo; UserError for a precision or launcher setting not supported."""
    resolved = resolve_precision(precision)
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    _require(not deepspeed, "distributed_type", "DEEPSPEED", f"{FORMS}; FSDP is FSDP2 (configs/accelerate/fsdp_8.yaml)")
    accelerator = Accelerator(
        mixed_precision="no" if resolved == "fp32" else resolved,
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[InitProcessGroupKwargs(backend=None, timeout=PROCESS_GROUP_TIMEOUT)],
    )
    _enable_fsdp_on_cpu(accelerator)
    _check_launcher(accelerator)
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ and os.environ.get("ACCELERATE_USE_CPU") != "True"
    hides_gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "0")[:1] in ("", "-")
    if launched and not hides_gpus and not torch.cuda.is_available() and accelerator.is_main_process:
        _log.warning("no GPU was found: this runs on the CPU, for which configs/accelerate/cpu.yaml is meant")
    if accelerator.device.type == "cpu":
        _keep_freed_memory()
    return accelerator


def _enable_fsdp_on_cpu(accelerator: Accelerator) -> None:
    """Apply an FSDP configuration on a CPU, where Accelerate would silently replicate the model."""
    requested = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if requested and accelerator.distributed_type == DistributedType.MULTI_CPU:
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        for state in (accelerator.state, PartialState()):  # Accelerate keeps the type in both
            state.distributed_type = DistributedType.FSDP


def _check_launcher(accelerator: Accelerator) -> None:
    supported = {DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.FSDP}
    form = accelerator.distributed_type
    _require(form in supported, "distributed_type", form.value, FORMS)
    steps = accelerator.gradient_accumulation_steps
    _require(steps == 1, "gradient_accumulation_steps", steps, "1; see training.accumulation_steps")
    if form != DistributedType.FSDP:
        return
    plugin, dynamo = accelerator.state.fsdp_plugin, accelerator.state.dynamo_plugin.backend
    _require(plugin.fsdp_version == 2, "fsdp_version", plugin.fsdp_version, "2")
    recomputes, allowed = plugin.activation_checkpointing, "false; see training.activation_checkpointing"
    _require(not recomputes, "fsdp_activation_checkpointing", True, allowed)
    _require(not plugin.cpu_ram_efficient_loading, "fsdp_cpu_ram_efficient_loading", True, "false")
    _require(dynamo == DynamoBackend.NO, "dynamo_backend", dynamo.value, "no; see training.compile")
    # Accelerate would round weights, gradients and their exchange to the run's precision. Weights and gradients are
    # float32 under autocast here (`vidtl.training.step`).
    plugin.mixed_precision_policy = MixedPrecisionPolicy()


def _require(condition: bool, key: str, value: object, allowed: str) -> None:
    if not condition:
        raise UserError(f"the launcher's {key} is {value}; allowed: {allowed}")


def _keep_freed_memory() -> None:
    """Keep freed memory in the process, as PyTorch does on a GPU; does nothing without glibc.

    glibc returns large blocks to the system, which maps and clears the same memory in every training step: 0.187 s of
    CPU time in place of 0.159 s for one of configs/toy.yaml.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:  # parameters from glibc's malloc.h: M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
        for parameter, value in ((-4, 0), (-1, -1), (-2, 64 << 20)):
            mallopt(parameter, value)


def on_main_process(accelerator: Accelerator, action: Callable[[], T]) -> T:
    """Run `action` on the main process only; every process gets its result, or raises its UserError."""
    if accelerator.num_processes == 1:
        return action()
    outcome: list[Any] = [None]
    with activity(None if accelerator.is_main_process else Activity.WAITING):
        if accelerator.is_main_process:
            try:
                outcome[0] = action()
            except UserError as error:
                outcome[0] = error
        utils.broadcast_object_list(outcome)
    if isinstance(outcome[0], UserError):
        raise outcome[0]
    return outcome[0]  # type: ignore[no-any-return]


def wait_for_everyone(accelerator: Accelerator) -> None:
    """Return once every process has arrived, without a time limit; the launcher ends those that wait in vain."""
    if accelerator.num_processes == 1:
        return
    store = torch.distributed.distributed_c10d._get_default_store()
    # Attempts of a restarted job share the launcher's store.
    key = f"vidtl/arrived/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    turn = -(-store.add(key, 1) // accelerator.num_processes)
    while store.add(key, 0) < turn * accelerator.num_processes:
        time.sleep(0.05)
    accelerator.wait_for_everyone()  # the store may live in the process that leaves first
