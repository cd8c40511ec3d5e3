"""What norms keep of the clips they have seen: the one thing in a model that a step changes without a gradient."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def running_statistics(model: nn.Module) -> dict[str, Tensor]:
    """By name, what a forward pass in training may change and a checkpoint holds: the running means of norms."""
    kept = model.state_dict()
    return {name: b for name, b in model.named_buffers() if b.is_floating_point() and name in kept}


def take_from_first_process(statistics: Sequence[Tensor]) -> None:
    """Make them the first process's in all, in one exchange; every process must call this."""
    together = torch.cat([tensor.flatten() for tensor in statistics])
    torch.distributed.broadcast(together, src=0)
    parts = torch.split(together, [tensor.numel() for tensor in statistics])
    torch._foreach_copy_(list(statistics), [part.view_as(own) for part, own in zip(parts, statistics, strict=True)])
