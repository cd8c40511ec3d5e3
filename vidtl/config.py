"""The whole experiment as typed dataclasses: the source of all defaults, of `--help` and of what checkpoints record.

This module imports nothing heavy and builds nothing. Checks that need one section only live in that section's
`__post_init__`; checks that need the data or the model are made where those are built. Every error names the dotted
key, the value received and what is allowed.
"""

from dataclasses import dataclass, field
from typing import Literal

from vidtl.errors import UserError


def _require(condition: bool, key: str, value: object, allowed: str) -> None:
    if not condition:
        raise UserError(f"{key} is {value!r}; allowed: {allowed}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which videos, and how they are read."""

    dataset: str = "toy"
    """Name of a folder under `datasets/`, or the path of any folder that holds a `dataset.yaml`."""
    root: str = "data/toy"
    """Folder that holds the annotation files and the videos; paths in `dataset.yaml` are relative to it."""
    train_split: str = "train"
    """Split of `dataset.yaml` to train on."""
    eval_split: str = "val"
    """Split of `dataset.yaml` to evaluate on."""
    decoder: Literal["pyav", "decord", "torchcodec"] = "pyav"
    """Decoding library. `pyav` is the fast and exact one. The others give RGB only and refuse files that they misread:
    `decord` exists on x86-64 Linux only, `torchcodec` is an extra that needs FFmpeg's libraries."""
    pixel_format: Literal["planar", "rgb"] = "planar"
    """How frames travel to the device: planar YUV 4:2:0 (1.5 bytes a pixel, converted there) or RGB (3 bytes)."""
    num_workers: int = 2
    """Decoding processes per training process; 0 decodes in the training process itself."""
    prefetch_batches: int = 2
    """Batches that each worker prepares ahead."""
    worker_timeout_s: float = 120.0
    """Seconds to wait for a batch before the run stops and says which videos were being read."""
    max_substitutions: int = 3
    """Training only: how many other videos may stand in, one after the other, for one that cannot be read."""
    max_unreadable_share: float = 0.05
    """Training only: the run stops once a larger share of the videos asked for could not be read."""

    def __post_init__(self) -> None:
        _require(self.num_workers >= 0, "data.num_workers", self.num_workers, "0 or more")
        _require(self.prefetch_batches >= 1, "data.prefetch_batches", self.prefetch_batches, "1 or more")
        _require(self.worker_timeout_s > 0, "data.worker_timeout_s", self.worker_timeout_s, "more than 0 seconds")
        _require(self.max_substitutions >= 0, "data.max_substitutions", self.max_substitutions, "0 or more")
        _require(0 <= self.max_unreadable_share <= 1, "data.max_unreadable_share", self.max_unreadable_share, "0 to 1")
        _require(
            self.decoder == "pyav" or self.pixel_format == "rgb",
            "data.pixel_format",
            self.pixel_format,
            f"'rgb' with data.decoder {self.decoder}, which delivers no planes",
        )


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """What one clip is: the frames taken from a video, their size and their range of values."""

    num_frames: int = 32
    """Frames per clip."""
    stride: int = 2
    """Distance between neighbouring frames of a clip, in frames of the video (or of the video at `target_fps`)."""
    target_fps: float = 0.0
    """Frame rate that the stride counts in, whatever the file's own; 0 keeps the file's own frames."""
    frame_size: tuple[int, int] = (224, 224)
    """Height and width in pixels that the model sees."""
    short_side: int = 256
    """Evaluation: the shorter side is resized to this before cropping to `frame_size`."""
    short_video: Literal["loop", "hold"] = "loop"
    """Videos shorter than a clip start again from their first frame, or hold their last one."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Subtracted from RGB in [0, 1]; ViViT's range [-1, 1] is mean 0.5 and std 0.5."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Divides RGB in [0, 1] after the mean is subtracted."""

    def __post_init__(self) -> None:
        _require(self.num_frames >= 1, "clip.num_frames", self.num_frames, "1 or more")
        _require(self.stride >= 1, "clip.stride", self.stride, "1 or more")
        _require(self.target_fps >= 0, "clip.target_fps", self.target_fps, "0 (the file's own) or more")
        _require(
            all(side >= 2 and side % 2 == 0 for side in self.frame_size),
            "clip.frame_size",
            self.frame_size,
            "even sides of 2 pixels or more",
        )
        _require(
            self.short_side >= max(self.frame_size),
            "clip.short_side",
            self.short_side,
            f"at least the larger side of clip.frame_size, {max(self.frame_size)}",
        )
        _require(all(s > 0 for s in self.std), "clip.std", self.std, "values above 0")


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Random changes to training clips; each is the same for all frames of a clip. Evaluation uses none of them."""

    crop: Literal["jitter", "random_resized", "centre"] = "jitter"
    """`jitter`: ViViT's random scale then random crop; `random_resized`: random area and aspect; `centre`."""
    jitter_range: tuple[float, float] = (0.9, 1.33)
    """`jitter`: height and width are scaled by two factors drawn independently from this range (ViViT appendix)."""
    area_range: tuple[float, float] = (0.3, 1.0)
    """`random_resized`: share of the frame's area that the crop covers."""
    aspect_range: tuple[float, float] = (0.75, 1.333)
    """`random_resized`: width divided by height of the crop, drawn log-uniformly."""
    flip_probability: float = 0.5
    """Chance of a mirror image; set 0 where left and right are part of the class."""
    colour_probability: float = 0.0
    """Chance of random brightness, contrast, saturation and hue (ViViT's Kinetics recipes: 0.8)."""
    brightness: float = 0.125
    """Largest change of brightness, as a share of the full range."""
    contrast: float = 0.4
    """Largest relative change of contrast."""
    saturation: float = 0.4
    """Largest relative change of saturation."""
    hue: float = 0.2
    """Largest rotation of hue, as a share of the colour circle."""
    grey_probability: float = 0.0
    """Chance of dropping all colour (ViViT's Kinetics recipes: 0.1)."""

    def __post_init__(self) -> None:
        for name in ("flip_probability", "colour_probability", "grey_probability"):
            _require(0 <= getattr(self, name) <= 1, f"augmentation.{name}", getattr(self, name), "0 to 1")
        for name in ("jitter_range", "area_range", "aspect_range"):
            low, high = getattr(self, name)
            _require(0 < low <= high, f"augmentation.{name}", (low, high), "two rising values above 0")
        for name in ("brightness", "contrast", "saturation"):
            _require(0 <= getattr(self, name) <= 1, f"augmentation.{name}", getattr(self, name), "0 to 1")
        _require(0 <= self.hue <= 0.5, "augmentation.hue", self.hue, "0 to 0.5")
        _require(self.area_range[1] <= 1, "augmentation.area_range", self.area_range, "at most 1")


@dataclass(frozen=True, kw_only=True)
class TokenLearnerConfig:
    """A TokenLearner stage between two blocks: N tokens per timestep in, `num_tokens` out."""

    num_tokens: int = 8
    """Tokens per timestep that remain (the papers use 8 or 16); 0 builds the model without TokenLearner."""
    after_block: int = 3
    """TokenLearner runs after this many blocks: `8at3` in the papers' notation is 8 tokens after block 3."""
    version: Literal["v1", "v1.1"] = "v1.1"
    """`v1`: four 3x3 convolutions and a sigmoid (the paper's experiments); `v1.1`: an MLP and a softmax over space."""
    pooling: Literal["sum", "mean"] = "sum"
    """`v1` only: maps times features are summed over space (the authors' code) or averaged."""
    fuser: bool = False
    """Wraps every later block as TokenLearner -> block -> TokenFuser, so that the token count is restored each time."""

    def __post_init__(self) -> None:
        _require(self.num_tokens >= 0, "model.vivit.token_learner.num_tokens", self.num_tokens, "0 or more")
        _require(self.after_block >= 0, "model.vivit.token_learner.after_block", self.after_block, "0 or more")
        _require(
            self.pooling == "sum" or self.version == "v1",
            "model.vivit.token_learner.pooling",
            self.pooling,
            "'sum' with version v1.1, whose maps already average",
        )


@dataclass(frozen=True, kw_only=True)
class ViViTConfig:
    """ViViT in its four forms; with one frame and tubelets of length 1 the joint form is an image ViT."""

    form: Literal["joint", "factorised_encoder", "factorised_self_attention", "factorised_dot_product"] = (
        "factorised_encoder"
    )
    """Models 1, 2, 3 and 4 of the ViViT paper: which axes attend to each other."""
    size: Literal["Ti", "S", "B", "L", "H"] = "B"
    """Width, depth, heads and MLP width by the papers' letter; each may be overridden below."""
    width: int = 0
    """Token width D; 0 takes it from `size`."""
    depth: int = 0
    """Blocks (for the factorised encoder: spatial blocks); 0 takes it from `size`."""
    num_heads: int = 0
    """Attention heads; 0 takes it from `size`."""
    mlp_width: int = 0
    """Hidden width of the MLPs; 0 is 4 x width."""
    temporal_depth: int = 4
    """Factorised encoder only: blocks of the temporal encoder; 0 averages over time instead."""
    tokeniser: Literal["tubelet", "t2t_performer", "t2t_transformer"] = "tubelet"
    """Tubelets by one projection, or the tokens-to-token module of T2T-ViT on each frame (`tubelet` [1, 16, 16])."""
    tubelet: tuple[int, int, int] = (2, 16, 16)
    """Frames, height and width of the tubelets that become tokens."""
    tubelet_sampling: Literal["tubelet", "uniform"] = "tubelet"
    """`uniform`: instead of tubelets, 2-D patches of num_frames / tubelet[0] evenly spaced frames."""
    pooling: Literal["cls", "mean", "max", "sum"] = "mean"
    """How tokens become one vector: a class token, or a reduction over tokens (TokenLearner needs a reduction)."""
    temporal_input: Literal["pooled", "tokens"] = "pooled"
    """Factorised encoder only: the temporal encoder sees one pooled vector per timestep, or every token of it."""
    attention_order: Literal["time_space", "space_time"] = "time_space"
    """Factorised self-attention only: which axis attends first in each block."""
    positions: Literal["learned", "sincos_1d", "sincos_3d"] = "learned"
    """Position embedding: learned, or fixed sines and cosines over the sequence or over (t, h, w)."""
    dropout: float = 0.0
    """Dropout after the positions and inside blocks."""
    attention_dropout: float = 0.0
    """Dropout on attention probabilities."""
    stochastic_depth: float = 0.0
    """Chance that the last block's branches are skipped; it rises linearly from 0 at the first block."""
    stochastic_depth_rescale: bool = False
    """Divide kept branches by the chance of keeping (timm); ViViT's code does not."""
    token_learner: TokenLearnerConfig = field(default_factory=TokenLearnerConfig)

    def __post_init__(self) -> None:
        for name in ("width", "depth", "num_heads", "mlp_width", "temporal_depth"):
            _require(getattr(self, name) >= 0, f"model.vivit.{name}", getattr(self, name), "0 or more")
        _require(all(n >= 1 for n in self.tubelet), "model.vivit.tubelet", self.tubelet, "three values of 1 or more")
        for name in ("dropout", "attention_dropout", "stochastic_depth"):
            _require(0 <= getattr(self, name) < 1, f"model.vivit.{name}", getattr(self, name), "0 or more, below 1")


@dataclass(frozen=True, kw_only=True)
class T2TViTConfig:
    """T2T-ViT, an image model (`clip.num_frames` 1)."""

    size: Literal[7, 10, 12, 14, 19, 24] = 14
    """Width, depth, heads and MLP width by the paper's number; each may be overridden below."""
    token_module: Literal["performer", "transformer"] = "performer"
    """Attention inside the token module: `performer` is T2T-ViT-14, `transformer` is T2T-ViT_t-14."""
    width: int = 0
    """Token width D; 0 takes it from `size`."""
    depth: int = 0
    """Blocks after the token module; 0 takes it from `size`."""
    num_heads: int = 0
    """Attention heads; 0 takes it from `size`."""
    mlp_width: int = 0
    """Hidden width of the MLPs; 0 takes the ratio to the width from `size`."""
    token_width: int = 64
    """Width inside the token module."""
    token_dropout: float = 0.1
    """Dropout inside the Performer token module; the published models have it, even those without any other."""
    dropout: float = 0.0
    """Dropout after the positions and inside blocks."""
    attention_dropout: float = 0.0
    """Dropout on the attention probabilities of the blocks."""
    stochastic_depth: float = 0.0
    """Chance that the last block's branches are skipped, rising linearly from 0 (the paper trains with 0.1)."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "num_heads", "mlp_width"):
            _require(getattr(self, name) >= 0, f"model.t2t_vit.{name}", getattr(self, name), "0 or more")
        _require(self.token_width >= 2, "model.t2t_vit.token_width", self.token_width, "2 or more")
        for name in ("token_dropout", "dropout", "attention_dropout", "stochastic_depth"):
            _require(0 <= getattr(self, name) < 1, f"model.t2t_vit.{name}", getattr(self, name), "0 or more, below 1")


def _token_learner_after_third_block() -> TokenLearnerConfig:
    return TokenLearnerConfig(num_tokens=8, after_block=3, version="v1", pooling="mean")


@dataclass(frozen=True, kw_only=True)
class MiniViTConfig:
    """The small image ViT of the CIFAR-10 TokenLearner study (`clip.num_frames` 1, `clip.frame_size` [48, 48])."""

    patch: int = 6
    """Height and width of the patches in pixels."""
    width: int = 128
    """Token width D."""
    depth: int = 4
    """Blocks."""
    num_heads: int = 4
    """Attention heads."""
    head_width: int = 128
    """Width of each head; all heads together are wider than the tokens."""
    mlp_width: int = 256
    """Hidden width of the MLPs."""
    positions: Literal["learned", "frozen"] = "learned"
    """`frozen` keeps the random start of the position table, as the study's notebook seems to do."""
    dropout: float = 0.1
    """Dropout after the positions and inside the MLPs."""
    attention_dropout: float = 0.1
    """Dropout on attention probabilities."""
    token_learner: TokenLearnerConfig = field(default_factory=_token_learner_after_third_block)
    """TokenLearner between two blocks; the study has version v1 with mean pooling after block 3 of 4."""

    def __post_init__(self) -> None:
        for name in ("patch", "width", "depth", "num_heads", "head_width", "mlp_width"):
            _require(getattr(self, name) >= 1, f"model.mini_vit.{name}", getattr(self, name), "1 or more")
        for name in ("dropout", "attention_dropout"):
            _require(0 <= getattr(self, name) < 1, f"model.mini_vit.{name}", getattr(self, name), "0 or more, below 1")
        _require(
            self.token_learner.num_tokens == 0 or self.token_learner.after_block <= self.depth,
            "model.mini_vit.token_learner.after_block",
            self.token_learner.after_block,
            f"0 to model.mini_vit.depth, {self.depth}",
        )
        _require(
            not self.token_learner.fuser,
            "model.mini_vit.token_learner.fuser",
            self.token_learner.fuser,
            "false; TokenFuser belongs to model.architecture vivit",
        )


@dataclass(frozen=True, kw_only=True)
class PytorchVideoConfig:
    """Baselines: the published video models of pytorchvideo, from random weights."""

    name: Literal[
        "x3d_xs", "x3d_s", "x3d_m", "slow_r50", "slowfast_r50", "r2plus1d_r50", "mvit_b_16x4", "mvit_b_32x3"
    ] = "x3d_s"
    """Model; each has frames and a frame size that it was made for, and says so where `clip` does not fit."""
    dropout: float = 0.5
    """Dropout before the classifier."""
    stochastic_depth: float = 0.0
    """`mvit_b_*` only: chance that the last block's branches are skipped, rising linearly from 0."""

    def __post_init__(self) -> None:
        for name in ("dropout", "stochastic_depth"):
            _require(
                0 <= getattr(self, name) < 1, f"model.pytorchvideo.{name}", getattr(self, name), "0 or more, below 1"
            )
        _require(
            self.stochastic_depth == 0 or self.name.startswith("mvit"),
            "model.pytorchvideo.stochastic_depth",
            self.stochastic_depth,
            f"0 with model.pytorchvideo.name {self.name}",
        )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model is built."""

    architecture: Literal["vivit", "t2t_vit", "mini_vit", "pytorchvideo"] = "vivit"
    """Family of the model; the section of the same name holds its settings, the other sections are not used."""
    vivit: ViViTConfig = field(default_factory=ViViTConfig)
    t2t_vit: T2TViTConfig = field(default_factory=T2TViTConfig)
    mini_vit: MiniViTConfig = field(default_factory=MiniViTConfig)
    pytorchvideo: PytorchVideoConfig = field(default_factory=PytorchVideoConfig)


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
        _require(self.learning_rate > 0, "optimizer.learning_rate", self.learning_rate, "more than 0")
        _require(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "0 or more")
        _require(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, "0 or more, below 1")
        _require(all(0 <= b < 1 for b in self.betas), "optimizer.betas", self.betas, "two values of 0 or more, below 1")
        _require(self.clip_norm >= 0, "optimizer.clip_norm", self.clip_norm, "0 or more")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Length of the run and course of the learning rate, per optimizer step whatever the number of processes."""

    name: Literal["cosine", "constant"] = "cosine"
    """Shape after the warm-up: half a cosine down to `final_factor`, or flat."""
    epochs: float = 30.0
    """Length of the run in passes over the training split."""
    warmup_epochs: float = 2.5
    """The learning rate rises linearly from 0 over this part of the run."""
    final_factor: float = 0.0
    """Learning rate at the end, as a share of the peak."""

    def __post_init__(self) -> None:
        _require(self.epochs > 0, "schedule.epochs", self.epochs, "more than 0")
        _require(
            0 <= self.warmup_epochs <= self.epochs, "schedule.warmup_epochs", self.warmup_epochs, "0 to schedule.epochs"
        )
        _require(0 <= self.final_factor <= 1, "schedule.final_factor", self.final_factor, "0 to 1")


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
            _require(getattr(self, name) >= 1, f"training.{name}", getattr(self, name), "1 or more")
        _require(0 <= self.label_smoothing < 1, "training.label_smoothing", self.label_smoothing, "0 or more, below 1")
        _require(
            self.evaluate_every_epochs >= 0, "training.evaluate_every_epochs", self.evaluate_every_epochs, "0 or more"
        )
        _require(self.seed >= 0, "training.seed", self.seed, "0 or more")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How videos are scored."""

    protocol: str = "dataset"
    """Named view protocol, such as `vivit_4x3` or `center`; `dataset` takes the one that `dataset.yaml` names."""
    fusion: Literal["protocol", "mean_logits", "mean_probabilities", "max"] = "protocol"
    """How the scores of a video's views become one; `protocol` takes the published one."""
    batch_size: int = 16
    """Clips per forward pass and process; bounds memory and changes no result."""
    max_videos: int = 0
    """Evaluate the first so many videos only, for a quick look; 0 is all. The report says so."""
    single_frame: bool = False
    """Show the middle frame of each view only, repeated: what is still recognised needs no time."""
    strict: bool = False
    """Exit with code 4 if any annotated video could not be read (it counts as wrong in any case)."""

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, "evaluation.batch_size", self.batch_size, "1 or more")
        _require(self.max_videos >= 0, "evaluation.max_videos", self.max_videos, "0 or more")


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """One run: the YAML file, the command line's `--section.key value` and the record inside each checkpoint."""

    data: DataConfig = field(default_factory=DataConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
