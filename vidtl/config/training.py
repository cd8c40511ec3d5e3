"""The training loop."""

from dataclasses import dataclass
from typing import Literal

from vidtl.config.checks import require, require_choices, setting


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The training loop."""

    seed: int = setting(0, "training")
    """Every random number of the run derives from this one, the epoch and the sample (or the step and the process)."""
    batch_size: int = setting(64, "training")
    """Clips per optimizer step, over all processes and accumulation steps together."""
    accumulation_steps: int = setting(1, "speed")
    """Forward and backward passes per optimizer step; the result is the same, the memory smaller."""
    precision: Literal["auto", "no", "bf16", "fp16"] = setting("auto", "training")
    """Arithmetic of the forward pass; `auto` is bf16 on a GPU that has it and float32 elsewhere."""
    compile: Literal["none", "blocks", "model"] = setting("none", "speed")
    """`blocks` compiles the transformer blocks one by one (a minute), `model` all of the model in one piece; needs a
    C++ compiler. Evaluation is not compiled."""
    activation_checkpointing: bool = setting(False, "speed")
    """Compute the activations of each block a second time in the backward pass instead of keeping them: the same
    result in less memory, about a quarter slower."""
    trainable: tuple[str, ...] = setting((), "training")
    """Parts of the model that are trained, by name, such as ['head'] for a linear probe or ['temporal_encoder',
    'head']; the rest is frozen. None given trains everything."""
    ema_decay: float = setting(0.0, "training")
    """Keep an average of the weights that forgets at this rate per step, such as 0.9999; evaluations use it. 0 keeps
    none."""
    label_smoothing: float = setting(0.0, "training")
    """Share of each target spread evenly over all classes."""
    log_every_steps: int = setting(10, "operation")
    """Steps between two lines of `metrics.jsonl`."""
    checkpoint_every_steps: int = setting(500, "operation")
    """Steps between checkpoints; there is always one before an evaluation and at the end of the run."""
    keep_checkpoints: int = setting(2, "operation")
    """Newest checkpoints to keep; the best one (top-1 or mAP of the periodic evaluation) is kept besides."""
    checkpoint_every_minutes: float = setting(0.0, "operation")
    """Minutes between checkpoints, besides those of `checkpoint_every_steps`; 0: steps only."""
    evaluate_every_epochs: float = setting(1.0, "selection")
    """Epochs between evaluations during training (one centred view), at least a step; 0 evaluates at the end only."""
    early_stop_evaluations: int = setting(0, "selection")
    """End the run once so many evaluations in a row have not bettered the best top-1 or mAP; 0: never."""
    nonfinite: Literal["stop", "skip"] = setting("stop", "operation")
    """A loss or gradient that is NaN or infinite ends the run, or its step leaves weights and optimizer as they are and
    is counted (the device then waits for the host in every step)."""
    max_nonfinite_steps: int = setting(10, "operation")
    """`skip`: steps in a row that may be left out before the run ends all the same."""
    hang_timeout_s: float = setting(300.0, "operation")
    """Several processes: seconds without progress in any of them, or without a sign of life from one, before the run
    ends and names the process that the others wait for; more than the first step takes with its compilation; 0: wait
    as long as PyTorch does."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = setting(("tensorboard",), "operation")
    """Where numbers go besides `metrics.jsonl`: tensorboard, wandb (`pip install vidtl[wandb]`; the project is vidtl
    unless WANDB_PROJECT names another), both, or none."""
    init_from: str = setting("", "training")
    """Weights to start from: a run, a model directory (ours or of transformers), a Flax `.npz`, an image ViT file."""
    init_new_head: bool = setting(False, "training")
    """Leave the classifier of `init_from` behind, for data of other classes (image ViTs never bring theirs)."""
    resume: Literal["auto", "never"] = setting("auto", "operation")
    """`auto` goes on from the output directory's newest valid checkpoint; `never` refuses a directory that has one."""

    def __post_init__(self) -> None:
        require_choices(self, "training")
        for name in (
            "batch_size",
            "accumulation_steps",
            "log_every_steps",
            "checkpoint_every_steps",
            "keep_checkpoints",
            "max_nonfinite_steps",
        ):
            require(getattr(self, name) >= 1, f"training.{name}", getattr(self, name), "1 or more")
        require(0 <= self.ema_decay < 1, "training.ema_decay", self.ema_decay, "0 or more, below 1")
        require(0 <= self.label_smoothing < 1, "training.label_smoothing", self.label_smoothing, "0 or more, below 1")
        for name in ("checkpoint_every_minutes", "evaluate_every_epochs", "early_stop_evaluations", "hang_timeout_s"):
            require(getattr(self, name) >= 0, f"training.{name}", getattr(self, name), "0 or more")
        if self.evaluate_every_epochs == 0:
            stops, allowed = self.early_stop_evaluations, "0 where training.evaluate_every_epochs is 0"
            require(stops == 0, "training.early_stop_evaluations", stops, allowed)
        require(self.seed >= 0, "training.seed", self.seed, "0 or more")
