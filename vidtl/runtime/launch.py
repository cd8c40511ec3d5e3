"""Start of a tool: processes and precision.

Accelerate owns devices, processes, precision and gradient synchronisation. How many processes run is decided by the
launcher (`accelerate launch`, `torchrun`, or none for one process), never here.
"""

import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import (
    DistributedType,
    DynamoBackend,
    FullyShardedDataParallelPlugin,
    InitProcessGroupKwargs,
    broadcast_object_list,
)
from torch.distributed.fsdp import MixedPrecisionPolicy

from vidtl.errors import UserError
from vidtl.runtime.memory import keep_freed_memory
from vidtl.runtime.watchdog import Activity, doing
from vidtl.runtime.zero import check_deepspeed, hidden_deepspeed

T = TypeVar("T")

PROCESS_GROUP_TIMEOUT = timedelta(minutes=15)
"""How long a process waits for the others before it gives up; gloo's half hour hides a hung peer for too long.

Not 10 minutes: accelerate takes that for its own default, drops it, and gloo falls back to 30.
"""

POLL_S = 0.05
"""Time between two looks at whether the others have come."""

_DATA_PARALLEL = {DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.FSDP}


def resolve_precision(precision: Literal["auto", "no", "bf16", "fp16"]) -> Literal["no", "bf16", "fp16"]:
    """What `auto` means here: bf16 on a GPU that has it, float32 elsewhere; UserError for fp16 without a GPU."""
    has_gpu = torch.cuda.is_available()
    if precision == "auto":
        return "bf16" if has_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    if precision == "fp16" and not has_gpu:
        raise UserError("training.precision is 'fp16' on a machine without a GPU; allowed here: 'auto', 'no', 'bf16'")
    return precision


def make_accelerator(precision: Literal["auto", "no", "bf16", "fp16"]) -> Accelerator:
    """The one Accelerator of a run. Without a GPU the launcher's N processes run on the CPU over gloo.

    Raises UserError for a precision that the machine lacks and for settings of the launcher that cannot be honoured.
    """
    resolved = resolve_precision(precision)
    check_deepspeed(resolved)
    with hidden_deepspeed():
        accelerator = Accelerator(
            mixed_precision=resolved,
            cpu=not torch.cuda.is_available(),
            kwargs_handlers=[InitProcessGroupKwargs(backend=None, timeout=PROCESS_GROUP_TIMEOUT)],
        )
    _shard_on_cpu(accelerator)
    if accelerator.distributed_type not in _DATA_PARALLEL:
        raise UserError(
            f"the launcher's configuration asks for {accelerator.distributed_type.value}; "
            "allowed: one process, or several with distributed_type MULTI_GPU (also on a CPU), FSDP or DEEPSPEED"
        )
    if accelerator.gradient_accumulation_steps != 1:
        raise UserError(
            f"the launcher's gradient_accumulation_steps is {accelerator.gradient_accumulation_steps}; "
            "allowed: 1, because training.accumulation_steps sets it"
        )
    if accelerator.distributed_type == DistributedType.FSDP:
        _check_sharding(accelerator)
        # As in every form, float32 weights and gradients, and autocast (`vidtl.training.step`): Accelerate would round
        # weights, gradients and their exchange to the precision of the run.
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy()
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    return accelerator


def _shard_on_cpu(accelerator: Accelerator) -> None:
    """Let an FSDP configuration mean the same on a CPU, where Accelerate would replicate the model without a word."""
    asked_for = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if asked_for and accelerator.distributed_type == DistributedType.MULTI_CPU:
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        for state in (accelerator.state, PartialState()):  # two records of the same, as Accelerate keeps them
            state.distributed_type = DistributedType.FSDP


def _check_sharding(accelerator: Accelerator) -> None:
    plugin = accelerator.state.fsdp_plugin
    refused = {
        "fsdp_version": (plugin.fsdp_version, "2", plugin.fsdp_version == 2),
        "fsdp_activation_checkpointing": (True, "false; see training.activation_checkpointing",
                                          not plugin.activation_checkpointing),
        "fsdp_cpu_ram_efficient_loading": (True, "false", not plugin.cpu_ram_efficient_loading),
        "dynamo_backend": (accelerator.state.dynamo_plugin.backend.value, "no; see training.compile",
                           accelerator.state.dynamo_plugin.backend == DynamoBackend.NO),
    }  # fmt: skip
    for key, (value, allowed, is_right) in refused.items():
        if not is_right:
            raise UserError(f"the launcher's {key} is {value} together with FSDP; allowed: {allowed}")


def on_main_process(accelerator: Accelerator, action: Callable[[], T]) -> T:
    """Run `action` on the first process only; every process gets its result, or raises its UserError."""
    if accelerator.num_processes == 1:
        return action()
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = action()
        except UserError as error:
            outcome[1] = error
    else:
        doing(Activity.WAITING)
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    result: T = outcome[0]
    return result


def wait_for_everyone(accelerator: Accelerator) -> None:
    """Return once every process has come here, however late: collectives give up after `PROCESS_GROUP_TIMEOUT`.

    A process that ends before it comes makes the launcher end those that wait.
    """
    if accelerator.num_processes == 1:
        return
    store = torch.distributed.distributed_c10d._get_default_store()
    # Attempts of a restarted job share the launcher's store.
    key = f"vidtl/arrived/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    turn = -(-store.add(key, 1) // accelerator.num_processes)  # nobody comes again before all have come
    while store.add(key, 0) < turn * accelerator.num_processes:
        time.sleep(POLL_S)
    accelerator.wait_for_everyone()  # nobody goes, perhaps with the store, before all have seen it
