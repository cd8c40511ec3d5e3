"""The training loop."""

from dataclasses import dataclass
from typing import Literal

from vidtl.config.checks import require, require_choices, setting


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The training loop."""

    seed: int = setting(0, "training")
    """Seed that every random number of the run derives from, with the epoch and sample (or the step and process)."""
    batch_size: int = setting(64, "training")
    """Clips per optimizer step, over all processes and accumulation steps."""
    accumulation_steps: int = setting(1, "speed")
    """Forward and backward passes per optimizer step: the same result with less memory."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting("auto", "training")
    """Autocast precision; `auto` is bf16 on a GPU that supports it, and fp32 elsewhere."""
    loss: str = setting("", "training")
    """Loss function: cross_entropy, binary_cross_entropy or focal; '' is cross_entropy for single-label and
    binary_cross_entropy for multi-label data."""
    class_weights: Literal["none", "balanced"] = setting("none", "training")
    """`balanced` weights classes inversely to their frequency in the training split, with mean 1; for multi-label data
    the weight applies to positive targets."""
    label_smoothing: float = setting(0.0, "training")
    """Share of each target that is spread evenly over all classes."""
    compile: Literal["none", "blocks", "model"] = setting("none", "speed")
    """torch.compile: `blocks` compiles each transformer block (about a minute), `model` the whole model. Needs a C++
    compiler; evaluation is not compiled."""
    activation_checkpointing: bool = setting(False, "speed")
    """Recompute the activations of each block in the backward pass: the same result with less memory, about a quarter
    slower."""
    trainable: tuple[str, ...] = setting((), "training")
    """Modules or parameters to train, such as ['head'] for a linear probe or ['temporal_encoder', 'head']; the rest is
    frozen. Empty trains everything."""
    ema_decay: float = setting(0.0, "training")
    """Decay per step of an exponential moving average of the weights, such as 0.9999; evaluations use the average. 0
    keeps none."""
    log_every_steps: int = setting(10, "operation")
    """Steps between lines of `metrics.jsonl`."""
    checkpoint_every_steps: int = setting(500, "operation")
    """Steps between checkpoints; one is also written before every evaluation and at the end of the run."""
    keep_checkpoints: int = setting(2, "operation")
    """Number of newest checkpoints to keep, in addition to the best one."""
    evaluate_every_epochs: float = setting(1.0, "selection")
    """Epochs (at least one step) between evaluations of one center view; 0 evaluates only at the end."""
    best_metric: str = setting("", "selection")
    """Metric of the evaluations during training, higher is better, that decides the best checkpoint and early stopping;
    '' is top1 for single-label and mAP for multi-label data."""
    early_stop_evaluations: int = setting(0, "selection")
    """Stop after this many evaluations in a row without improvement of the best metric; 0 never stops."""
    nonfinite: Literal["stop", "skip"] = setting("stop", "operation")
    """On a loss or gradient norm that is NaN or infinite, end the run, or skip the optimizer step and count it. `skip`
    synchronizes device and host in every step; the run ends after 10 skipped steps in a row."""
    hang_timeout_s: float = setting(300.0, "operation")
    """Multi-process: abort after this many seconds without progress in any process, or without a heartbeat from one;
    must exceed the compile time of the first step. 0 disables the watchdog."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = setting(("tensorboard",), "operation")
    """Trackers besides `metrics.jsonl`: tensorboard, wandb (`pip install vidtl[wandb]`; WANDB_PROJECT sets the project,
    default vidtl), both, or none."""
    init_from: str = setting("", "training")
    """Initial weights: a run, a model directory (ours or of transformers), a Flax `.npz`, or an image ViT file."""
    init_new_head: bool = setting(False, "training")
    """Do not load the classifier of `init_from`, for data with other classes (never loaded from image ViTs)."""
    resume: Literal["auto", "never"] = setting("auto", "operation")
    """`auto` resumes from the newest valid checkpoint of the output directory; `never` rejects a directory with
    checkpoints."""

    def __post_init__(self) -> None:
        require_choices(self, "training")
        for name in ("batch_size", "accumulation_steps", "log_every_steps", "checkpoint_every_steps",
                     "keep_checkpoints"):  # fmt: skip
            require(getattr(self, name) >= 1, f"training.{name}", getattr(self, name), "1 or more")
        for name in ("ema_decay", "label_smoothing"):
            require(0 <= getattr(self, name) < 1, f"training.{name}", getattr(self, name), "0 or more, below 1")
        for name in ("seed", "evaluate_every_epochs", "early_stop_evaluations", "hang_timeout_s"):
            require(getattr(self, name) >= 0, f"training.{name}", getattr(self, name), "0 or more")
        if self.evaluate_every_epochs == 0:
            stops, allowed = self.early_stop_evaluations, "0 where training.evaluate_every_epochs is 0"
            require(stops == 0, "training.early_stop_evaluations", stops, allowed)
