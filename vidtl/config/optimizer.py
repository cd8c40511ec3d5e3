"""How gradients change the weights."""

from dataclasses import dataclass
from typing import Literal

from vidtl.config.checks import require


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How gradients change the weights."""

    name: Literal["adamw", "sgd"] = "adamw"
    """`sgd` has momentum and no Nesterov step, as ViViT's recipes; `adamw` decouples the weight decay."""
    learning_rate: float = 1e-3
    """Peak learning rate, reached at the end of the warm-up."""
    weight_decay: float = 0.05
    """Decay of weight matrices; norms, biases, class tokens and positions never decay."""
    momentum: float = 0.9
    """`sgd` only."""
    betas: tuple[float, float] = (0.9, 0.999)
    """`adamw` only: decay of the running mean and of the running square of the gradient."""
    clip_norm: float = 1.0
    """Largest norm of the whole gradient; 0 does not clip."""

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, "optimizer.learning_rate", self.learning_rate, "more than 0")
        require(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "0 or more")
        require(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, "0 or more, below 1")
        require(all(0 <= b < 1 for b in self.betas), "optimizer.betas", self.betas, "two values of 0 or more, below 1")
        require(self.clip_norm >= 0, "optimizer.clip_norm", self.clip_norm, "0 or more")
