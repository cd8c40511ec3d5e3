"""The training loop."""

from dataclasses import dataclass
from typing import Literal

from vidtl.config.checks import require


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The training loop."""

    seed: int = 0
    """Every random number of the run derives from this one, the epoch and the sample (or the step and the process)."""
    batch_size: int = 64
    """Clips per optimizer step, over all processes and accumulation steps together."""
    accumulation_steps: int = 1
    """Forward and backward passes per optimizer step; the result is the same, the memory smaller."""
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Arithmetic of the forward pass; `auto` is bf16 on a GPU that has it and float32 elsewhere."""
    label_smoothing: float = 0.0
    """Share of each target spread evenly over all classes."""
    log_every_steps: int = 10
    """Steps between two lines of `metrics.jsonl`."""
    checkpoint_every_steps: int = 500
    """Steps between checkpoints; there is always one before an evaluation and at the end of the run."""
    keep_checkpoints: int = 2
    """Newest checkpoints to keep; the best one (top-1 or mAP of the periodic evaluation) is kept besides."""
    evaluate_every_epochs: float = 1.0
    """Epochs between evaluations during training (one centred view); 0 evaluates at the end only."""
    init_from: str = ""
    """Weights to start from: a run, a model directory (ours or of transformers), a Flax `.npz`, an image ViT file."""
    init_new_head: bool = False
    """Leave the classifier of `init_from` behind, for data of other classes (image ViTs never bring theirs)."""
    resume: Literal["auto", "never"] = "auto"
    """`auto` goes on from the output directory's newest valid checkpoint; `never` refuses a directory that has one."""

    def __post_init__(self) -> None:
        for name in (
            "batch_size",
            "accumulation_steps",
            "log_every_steps",
            "checkpoint_every_steps",
            "keep_checkpoints",
        ):
            require(getattr(self, name) >= 1, f"training.{name}", getattr(self, name), "1 or more")
        require(0 <= self.label_smoothing < 1, "training.label_smoothing", self.label_smoothing, "0 or more, below 1")
        require(
            self.evaluate_every_epochs >= 0, "training.evaluate_every_epochs", self.evaluate_every_epochs, "0 or more"
        )
        require(self.seed >= 0, "training.seed", self.seed, "0 or more")
