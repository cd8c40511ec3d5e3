"""Which model is built; a section for each architecture."""

from dataclasses import dataclass, field
from typing import Literal

from vidtl.config.checks import require, require_choices


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

    def check(self, key: str) -> None:
        """Raise a `UserError` for a value that cannot be; `key` is the section that this stage stands in."""
        require_choices(self, key)
        require(self.num_tokens >= 0, f"{key}.num_tokens", self.num_tokens, "0 or more")
        require(self.after_block >= 0, f"{key}.after_block", self.after_block, "0 or more")
        require(
            self.pooling == "sum" or self.version == "v1",
            f"{key}.pooling",
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
        require_choices(self, "model.vivit")
        self.token_learner.check("model.vivit.token_learner")
        for name in ("width", "depth", "num_heads", "mlp_width", "temporal_depth"):
            require(getattr(self, name) >= 0, f"model.vivit.{name}", getattr(self, name), "0 or more")
        require(all(n >= 1 for n in self.tubelet), "model.vivit.tubelet", self.tubelet, "three values of 1 or more")
        for name in ("dropout", "attention_dropout", "stochastic_depth"):
            require(0 <= getattr(self, name) < 1, f"model.vivit.{name}", getattr(self, name), "0 or more, below 1")


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
        require_choices(self, "model.t2t_vit")
        for name in ("width", "depth", "num_heads", "mlp_width"):
            require(getattr(self, name) >= 0, f"model.t2t_vit.{name}", getattr(self, name), "0 or more")
        require(self.token_width >= 2, "model.t2t_vit.token_width", self.token_width, "2 or more")
        for name in ("token_dropout", "dropout", "attention_dropout", "stochastic_depth"):
            require(0 <= getattr(self, name) < 1, f"model.t2t_vit.{name}", getattr(self, name), "0 or more, below 1")


def _token_learner_after_third_block() -> TokenLearnerConfig:
    return TokenLearnerConfig(num_tokens=8, after_block=3, version="v1", pooling="mean")


@dataclass(frozen=True, kw_only=True)
class MiniViTConfig:
    """The small image ViT of the CIFAR-10 TokenLearner study (`clip.num_frames` 1, `clip.frame_size` [48, 48])."""

    tokeniser: Literal["patch", "t2t_performer", "t2t_transformer"] = "patch"
    """Patches by one projection, or the tokens-to-token module of T2T-ViT, made to give as many tokens (`patch` 6)."""
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
        require_choices(self, "model.mini_vit")
        self.token_learner.check("model.mini_vit.token_learner")
        for name in ("patch", "width", "depth", "num_heads", "head_width", "mlp_width"):
            require(getattr(self, name) >= 1, f"model.mini_vit.{name}", getattr(self, name), "1 or more")
        for name in ("dropout", "attention_dropout"):
            require(0 <= getattr(self, name) < 1, f"model.mini_vit.{name}", getattr(self, name), "0 or more, below 1")
        require(
            self.tokeniser == "patch" or self.patch == 6,
            "model.mini_vit.patch",
            self.patch,
            f"6 with tokeniser {self.tokeniser}, which makes one token of 6 x 6 pixels",
        )
        require(
            self.token_learner.num_tokens == 0 or self.token_learner.after_block <= self.depth,
            "model.mini_vit.token_learner.after_block",
            self.token_learner.after_block,
            f"0 to model.mini_vit.depth, {self.depth}",
        )
        require(
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
        require_choices(self, "model.pytorchvideo")
        for name in ("dropout", "stochastic_depth"):
            require(
                0 <= getattr(self, name) < 1, f"model.pytorchvideo.{name}", getattr(self, name), "0 or more, below 1"
            )
        require(
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

    def __post_init__(self) -> None:
        require_choices(self, "model")
