"""LoRA (Hu et al., 2021, arXiv 2106.09685) by the peft library: trained low-rank products beside frozen matrices.

With fewer than all linear layers of the blocks, LoRA stays behind full fine-tuning (Dettmers et al., 2023, arXiv
2305.14314, section 4). The scale of the product is fixed at 1: it acts like the learning rate (Hu et al., section 4.1).
"""

from collections.abc import Mapping
from importlib.util import find_spec

from torch import Tensor, nn

from vidtl.config.checks import require
from vidtl.errors import install_extra
from vidtl.training.model_setup import repeated_blocks

_BASE, _A, _B = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"


def add_adapters(model: nn.Module, rank: int) -> None:
    """Add trainable adapters to all frozen linear layers of the repeated blocks; other parameters stay as they are.

    The first matrices are drawn by torch's global generator, the others 0. UserError without peft, or such layers.
    """
    require(find_spec("peft") is not None, "training.lora", rank, f"0 without peft; {install_extra('lora')}")
    from peft import LoraConfig, inject_adapter_in_model  # here, because its import takes seconds

    inner = {module for block in repeated_blocks(model) for module in block.modules()}
    linear = {name: each for name, each in model.named_modules() if isinstance(each, nn.Linear) and each in inner}
    frozen = [name for name, layer in linear.items() if not layer.weight.requires_grad]
    require(bool(frozen), "training.lora", rank, "0 with a model that has no frozen linear layers in its blocks")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=frozen), model)
    for parameter in trained:  # peft freezes all but the adapters
        parameter.requires_grad_()


def has_adapters(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict is that of a model with adapters."""
    return any(name.endswith(_A) for name in tensors)


def merged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of the model without adapters that computes the same: W + B A in place of W."""
    plain = {}
    for name, tensor in tensors.items():
        if name.endswith((_A, _B)):
            continue
        layer, _, part = name.partition(_BASE)
        if part == "weight":
            tensor = tensor + tensors[layer + _B] @ tensors[layer + _A]
        plain[f"{layer}.{part}" if part else name] = tensor
    return plain
