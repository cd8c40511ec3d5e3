"""Dropout: as torch has it on a GPU, and a third of the time on a CPU, where torch draws one number after the other."""

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn

# Values of the 16 bits that decide over one number; a probability is rounded to so many.
_VALUES = 1 << 16


def drop(x: Tensor, probability: float) -> Tensor:
    """Each number becomes 0 with this probability, and is divided by the chance of keeping it otherwise.

    On a CPU the probability is rounded to a multiple of 2^-16, and the division is by the chance after rounding.
    """
    dropped = round(probability * _VALUES)
    if x.device.type != "cpu" or torch.compiler.is_compiling() or not 0 < dropped < _VALUES:
        return F.dropout(x, probability)
    four_draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
    draws = four_draws.view(torch.int16)[: x.numel()].view(x.shape)
    # Written in the type of x: torch multiplies by booleans one at a time.
    kept = torch.ge(draws, dropped - _VALUES // 2, out=torch.empty_like(x, requires_grad=False))
    # Not kept / chance: in bf16 that quotient would be off by up to 0.4 %, and with it every number.
    return x * kept * (_VALUES / (_VALUES - dropped))


class Dropout(nn.Dropout):
    """`drop` in training, nothing otherwise."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name in torch)
        return drop(input, self.p) if self.training else input
