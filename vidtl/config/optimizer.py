"""The optimizer."""

from dataclasses import dataclass
from typing import Literal

from vidtl.config.checks import require, require_choices


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer."""

    name: Literal["adamw", "sgd", "muon"] = "adamw"
    """`sgd` has momentum without Nesterov, as in ViViT's recipes; `muon` applies Muon, scaled to AdamW's learning
    rates, to the matrices between the first and the last layer, and AdamW to the rest."""
    learning_rate: float = 1e-3
    """Peak learning rate, reached at the end of the warm-up."""
    reference_batch: int = 0
    """Batch size that `learning_rate` refers to: scales it by training.batch_size / reference_batch; 0 does not
    scale."""
    layer_decay: float = 1.0
    """Factor between the learning rates of a layer and the one above it, 0.65 to 0.9 in fine-tuning; 1 is one rate for
    all."""
    weight_decay: float = 0.05
    """Decay of weight matrices; norms, biases, class tokens and position embeddings never decay."""
    momentum: float = 0.9
    """`sgd` and `muon`."""
    betas: tuple[float, float] = (0.9, 0.999)
    """`adamw` and `muon`: decay of the running mean and of the running square of the gradient."""
    epsilon: float = 1e-8
    """`adamw` and `muon`: added to the root of the running square."""
    clip_norm: float = 1.0
    """Maximum norm of the whole gradient; 0 does not clip."""

    def __post_init__(self) -> None:
        require_choices(self, "optimizer")
        require(self.learning_rate > 0, "optimizer.learning_rate", self.learning_rate, "more than 0")
        require(self.reference_batch >= 0, "optimizer.reference_batch", self.reference_batch, "0 or more")
        require(0 < self.layer_decay <= 1, "optimizer.layer_decay", self.layer_decay, "more than 0, at most 1")
        require(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "0 or more")
        require(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, "0 or more, below 1")
        require(all(0 <= b < 1 for b in self.betas), "optimizer.betas", self.betas, "two values of 0 or more, below 1")
        require(self.epsilon > 0, "optimizer.epsilon", self.epsilon, "more than 0")
        require(self.clip_norm >= 0, "optimizer.clip_norm", self.clip_norm, "0 or more")
