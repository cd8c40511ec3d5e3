"""Optimizer, learning rate schedule and training loop."""

import math
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from vidtl.config.checks import require, require_choices, require_each, setting
from vidtl.errors import UserError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer."""

    name: Literal["adamw", "sgd", "muon"] = "adamw"
    """`sgd`: momentum without Nesterov (ViViT's recipes); `muon`: Muon, scaled to AdamW's learning rates, for the
    matrices between the first and the last layer, and AdamW for the rest."""
    learning_rate: float = 1e-3
    """Peak learning rate, reached at the end of the warm-up."""
    reference_batch: int = 0
    """Scales `learning_rate` by training.batch_size / reference_batch; 0 does not scale."""
    layer_decay: float = 1.0
    """Learning rate of a layer divided by that of the one above, 0.65 to 0.9 in fine-tuning; 1 is one rate for all."""
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
        require_each(self, "optimizer", "learning_rate epsilon", lambda value: value > 0, "more than 0")
        require_each(self, "optimizer", "reference_batch weight_decay clip_norm", lambda v: v >= 0, "0 or more")
        require_each(self, "optimizer", "layer_decay", lambda value: 0 < value <= 1, "more than 0, at most 1")
        require_each(self, "optimizer", "momentum", lambda value: 0 <= value < 1, "0 or more, below 1")
        allowed = "two values of 0 or more, below 1"
        require_each(self, "optimizer", "betas", lambda pair: all(0 <= value < 1 for value in pair), allowed)


Unit = Literal["epochs", "steps", "samples"]

_LENGTH = re.compile(r"(?P<number>\d+(_\d+)*(\.\d+)?(e\d+)?)\s*(?P<unit>[a-z]+)")


class Length(NamedTuple):
    """Number of epochs (passes over the training split), optimizer steps, or samples of the training split."""

    number: float
    unit: Unit

    def to_steps(self, steps_per_epoch: int, samples_per_epoch: int) -> int:
        """Convert to the nearest number of optimizer steps; a sample counts as its share of an epoch."""
        steps_per_unit = {"epochs": steps_per_epoch, "steps": 1, "samples": steps_per_epoch / samples_per_epoch}
        return round(self.number * steps_per_unit[self.unit])


def parse_length(text: str, key: str) -> Length:
    """Parse a length; a UserError names the dotted `key` and the allowed form."""
    match = _LENGTH.fullmatch(text.strip().lower())
    if match is None or not math.isfinite(float(match["number"])):
        allowed = "a number and its unit, as in '30 epochs', '5000 steps' or '2_000_000 samples'"
        raise UserError(f"{key} is {text!r}; allowed: {allowed}")
    for unit in get_args(Unit):
        if match["unit"] in (unit, unit.removesuffix("s")):
            return Length(float(match["number"]), unit)
    raise UserError(f"{key} is {text!r}; {did_you_mean(match['unit'], get_args(Unit))}")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Length of the run and its learning rates; lengths are such as `30 epochs`, `5000 steps`, `2_000_000 samples`."""

    name: Literal["cosine", "linear", "step", "constant"] = "cosine"
    """Decay after the warm-up: cosine or linear to `final_factor`, steps at `milestones`, or none."""
    length: str = "30 epochs"
    """Length of the run. A run, finished or not, goes on with a longer one in the same unit: `constant` and `step` to
    the weights of a run of that length; with `cosine` and `linear` its learning rate applies from there on."""
    warmup: str = "2.5 epochs"
    """Length of the linear warm-up at the start of the run."""
    warmup_start: float = 0.0
    """Learning rate at the start of the warm-up."""
    cooldown: str = "0 epochs"
    """Length of the last part of the run, at the final learning rate."""
    final_factor: float = 0.0
    """`cosine`, `linear`: final learning rate as a fraction of the peak."""
    milestones: tuple[str, ...] = ()
    """`step`: points of decay by `step_factor`, such as ['20 epochs', '25 epochs']."""
    step_factor: float = 0.1
    """`step`: factor of the decay at each milestone."""

    def total_steps(self, steps_per_epoch: int, samples_per_epoch: int) -> int:
        """Return the number of optimizer steps of the run, at least 1."""
        return max(1, parse_length(self.length, "schedule.length").to_steps(steps_per_epoch, samples_per_epoch))

    def __post_init__(self) -> None:
        require_choices(self, "schedule")
        require(parse_length(self.length, "schedule.length").number > 0, "schedule.length", self.length, "more than 0")
        parse_length(self.warmup, "schedule.warmup")
        parse_length(self.cooldown, "schedule.cooldown")
        for milestone in self.milestones:
            parse_length(milestone, "schedule.milestones")
        allowed = "one or more with schedule.name step, none with the others"
        require_each(self, "schedule", "milestones", lambda value: bool(value) == (self.name == "step"), allowed)
        require_each(self, "schedule", "warmup_start", lambda value: value >= 0, "0 or more")
        require_each(self, "schedule", "final_factor", lambda value: 0 <= value <= 1, "0 to 1")
        require_each(self, "schedule", "step_factor", lambda value: 0 < value <= 1, "more than 0, at most 1")


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
    """cross_entropy, binary_cross_entropy or focal; '' is the first for single-label and the second for multi-label."""
    label_smoothing: float = setting(0.0, "training")
    """Share of each target that is spread evenly over all classes."""
    elastic_distillation: float = setting(0.5, "training")
    """Elastic TokenLearner, after the warm-up: share of the loss of fewer tokens with the scores of all as targets."""
    compile: Literal["none", "blocks", "model"] = setting("none", "speed")
    """torch.compile of each block (about a minute) or of the whole model, in training; needs a C++ compiler."""
    activation_checkpointing: bool = setting(False, "speed")
    """Recompute activations in the backward pass: the same result with less memory, about a quarter slower."""
    trainable: tuple[str, ...] = setting((), "training")
    """Modules or parameters to train, such as ['head'] for a linear probe; the rest is frozen. Empty trains all."""
    lora: int = setting(0, "training")
    """Rank of LoRA adapters in the blocks, such as 8, which train in place of the loaded weights, with the head, parts
    that have no loaded weights, and `trainable`; saved models have them merged. 0 for none. Needs the extra `lora`."""
    ema_decay: float = setting(0.0, "training")
    """Decay per step of an exponential average of the weights, such as 0.9999, which evaluations use; 0 for none."""
    log_every_steps: int = setting(10, "operation")
    """Steps between lines of `metrics.jsonl`."""
    checkpoint_every_steps: int = setting(500, "operation")
    """Steps between checkpoints; one is also written before every evaluation and at the end of the run."""
    keep_checkpoints: int = setting(2, "operation")
    """Number of newest checkpoints to keep, in addition to the best one."""
    evaluate_every_epochs: float = setting(1.0, "selection")
    """Epochs (at least one step) between evaluations of one center view; 0 evaluates only at the end."""
    best_metric: str = setting("", "selection")
    """Metric that decides the best checkpoint and early stopping; '' is top1 for single-label, mAP for multi-label."""
    early_stop_evaluations: int = setting(0, "selection")
    """Stop after this many evaluations in a row without improvement of the best metric; 0 never stops."""
    nonfinite: Literal["stop", "skip"] = setting("stop", "operation")
    """On a loss or gradient norm that is NaN or infinite, end the run, or skip the optimizer step and count it. `skip`
    synchronizes device and host in every step; the run ends after 10 skipped steps in a row."""
    on_sigusr1: Literal["stop", "checkpoint"] = setting("stop", "operation")
    """On SIGUSR1, the early warning of batch systems, write a checkpoint and stop, or write one and go on."""
    hang_timeout_s: float = setting(300.0, "operation")
    """Multi-process: abort after this many seconds without progress in any process, or without a heartbeat from one;
    must exceed the compile time of the first step. 0 disables the watchdog."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = setting(("tensorboard",), "operation")
    """Trackers besides `metrics.jsonl`; wandb is an extra, whose WANDB_PROJECT sets the project (default: vidtl)."""
    init_from: str = setting("", "training")
    """Initial weights: a run, a model directory (ours or of transformers), a Flax `.npz`, or an image ViT file."""
    init_new_head: bool = setting(False, "training")
    """Do not load the classifier of `init_from` (never loaded from image ViTs). Else its rows follow the class names,
    new classes start fresh, and a source with none of the classes, or without names, is refused."""
    resume: Literal["auto", "never"] = setting("auto", "operation")
    """Resume from the newest valid checkpoint of the output directory; `never` rejects a directory with checkpoints."""

    def __post_init__(self) -> None:
        require_choices(self, "training")
        names = "batch_size accumulation_steps log_every_steps checkpoint_every_steps keep_checkpoints"
        require_each(self, "training", names, lambda value: value >= 1, "1 or more")
        names = "ema_decay label_smoothing elastic_distillation"
        require_each(self, "training", names, lambda value: 0 <= value < 1, "0 or more, below 1")
        names = "seed lora evaluate_every_epochs early_stop_evaluations hang_timeout_s"
        require_each(self, "training", names, lambda value: value >= 0, "0 or more")
        if self.evaluate_every_epochs == 0:
            allowed = "0 where training.evaluate_every_epochs is 0"
            require_each(self, "training", "early_stop_evaluations", lambda value: value == 0, allowed)
