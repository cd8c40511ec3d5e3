"""ZeRO 1 and 2 through DeepSpeed, as far as the launcher's configuration decides it: whether, and which stage.

Accelerate's own DeepSpeed form is not used: it takes the step within the backward pass, sets precision and clipping,
and differs between CPU and GPU. To Accelerate, these processes are data-parallel ones; `vidtl.training.deepspeed` does
the rest.
"""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from accelerate import Accelerator

from vidtl.errors import UserError

_ASKED_FOR = "ACCELERATE_USE_DEEPSPEED"
_OF_DEEPSPEED = "ACCELERATE_DEEPSPEED_"
_STAGE = f"{_OF_DEEPSPEED}ZERO_STAGE"

_NOT_OURS = {
    f"{_OF_DEEPSPEED}CONFIG_FILE": ("deepspeed_config_file", "none; deepspeed_config holds zero_stage", ()),
    f"{_OF_DEEPSPEED}OFFLOAD_OPTIMIZER_DEVICE": ("offload_optimizer_device", "none", ("none",)),
    f"{_OF_DEEPSPEED}OFFLOAD_PARAM_DEVICE": ("offload_param_device", "none", ("none",)),
    f"{_OF_DEEPSPEED}ZERO3_INIT": ("zero3_init_flag", "false", ("false",)),
    f"{_OF_DEEPSPEED}ZERO3_SAVE_16BIT_MODEL": ("zero3_save_16bit_model", "false", ("false",)),
    f"{_OF_DEEPSPEED}MOE_LAYER_CLS_NAMES": ("deepspeed_moe_layer_cls_names", "none", ()),
    "ACCELERATE_GRADIENT_CLIPPING": ("gradient_clipping", "none, because optimizer.clip_norm sets it", ()),
}
"""What the launcher passes on: its key, what is allowed in words, and the values that ask for nothing."""


def zero_stage(accelerator: Accelerator) -> int:
    """1 or 2 where processes share out the optimizer's state through DeepSpeed; 0 elsewhere."""
    return _asked_stage() if _is_asked_for() and accelerator.num_processes > 1 else 0


def distribution(accelerator: Accelerator) -> str:
    """How the processes of a run share the work, for people."""
    stage = zero_stage(accelerator)
    return f"DEEPSPEED_ZERO_{stage}" if stage else str(accelerator.distributed_type.value)


def check_deepspeed(precision: Literal["no", "bf16", "fp16"]) -> None:
    """UserError where the launcher's configuration asks DeepSpeed for what it cannot have here."""
    if not _is_asked_for():
        return
    if importlib.util.find_spec("deepspeed") is None:
        raise UserError(
            "the launcher's configuration asks for DEEPSPEED, and deepspeed is not installed: "
            "pip install -e '.[deepspeed]'; allowed without it: MULTI_GPU or FSDP"
        )
    if _asked_stage() not in (1, 2):
        raise UserError(
            f"the launcher's zero_stage is {_asked_stage()}; allowed: 1 or 2, and for parameters in parts, as of ZeRO "
            "3, FSDP2 (configs/accelerate/fsdp_8.yaml)"
        )
    for variable, (key, allowed, idle) in _NOT_OURS.items():
        value = os.environ.get(variable)
        if value is not None and value not in idle:
            raise UserError(f"the launcher's {key} is {value} together with DEEPSPEED; allowed: {allowed}")
    if precision == "fp16":
        raise UserError("training.precision is 'fp16' together with DEEPSPEED; allowed: 'auto', 'no', 'bf16'")


@contextmanager
def hidden_deepspeed() -> Iterator[None]:
    """While the block lasts, Accelerate sees ordinary processes."""
    value = os.environ.pop(_ASKED_FOR, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[_ASKED_FOR] = value


def _is_asked_for() -> bool:
    return os.environ.get(_ASKED_FOR, "false").lower() == "true"


def _asked_stage() -> int:
    return int(os.environ.get(_STAGE, "2"))
