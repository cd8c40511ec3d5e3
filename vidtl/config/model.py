"""Model settings: families and sizes with their defaults, and the section `model`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from vidtl.config.checks import require, require_choices
from vidtl.config.data import ClipConfig
from vidtl.config.load import dotted
from vidtl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A family of models."""

    usual_size: str
    """Row of `sizes` for an empty `model.size`."""
    sizes: Mapping[str, Mapping[str, Any]]
    """Settings of each size, by their keys in `model`; `mlp_ratio` is `mlp_width` / `width`."""
    defaults: Mapping[str, Any]
    """All other keys of the family, with their defaults."""
    clip: Mapping[str, Any]
    clips: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings of `clip` in `create_model`, and their differences in some sizes."""

    def clip_of(self, size: str) -> dict[str, Any]:
        """Return the settings of `clip` for one size."""
        return {**self.clip, **self.clips.get(size or self.usual_size, {})}


def _sizes(table: str) -> dict[str, dict[str, int]]:
    rows = [(name, map(int, numbers)) for name, *numbers in map(str.split, table.split(","))]
    return {name: dict(zip(("width", "depth", "num_heads", "mlp_ratio"), row, strict=True)) for name, row in rows}


_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "stochastic_depth": 0.0}
_TOKEN_LEARNER: dict[str, Any] = {"num_tokens": 8, "after_block": 3, "hidden": None, "elastic": False}


def _token_learner(**others: Any) -> dict[str, Any]:
    return {f"token_learner.{key}": value for key, value in (_TOKEN_LEARNER | others).items()}


ARCHITECTURES: dict[str, Architecture] = {
    "vivit": Architecture(  # ViViT section 4.1; Ti and S as in the TokenLearner configurations
        usual_size="B",
        sizes=_sizes("Ti 192 12 3 4, S 384 12 6 4, B 768 12 12 4, L 1024 24 16 4, H 1280 32 16 4"),
        defaults={
            "form": "factorised_encoder",
            "temporal_depth": 4,
            "tokenizer": "tubelet",
            "tubelet": (2, 16, 16),
            "tubelet_sampling": "tubelet",
            "pooling": "mean",
            "pooling_width": None,
            "pooled_norm_eps": None,
            "temporal_input": "pooled",
            "attention_order": "time_space",
            "positions": "learned",
            "position_std": 0.02,
            "num_registers": 0,
            "activation": "gelu",
            "norm_eps": 1e-6,
            "input_norm": False,
            "layer_scale": 0.0,
            "attention_softcap": 0.0,
            **_DROPOUT,
            "stochastic_depth_rescale": False,
            **_token_learner(version="v1.1", pooling="sum", fuser=False),
        },
        clip={"num_frames": 32, "frame_size": (224, 224)},
    ),
    "t2t_vit": Architecture(  # T2T-ViT, table 1
        usual_size="14",
        sizes=_sizes("7 256 7 4 2, 10 256 10 4 2, 12 256 12 4 2, 14 384 14 6 3, 19 448 19 7 3, 24 512 24 8 3"),
        defaults={"tokenizer": "t2t_performer", **_DROPOUT, "token_width": 64, "token_dropout": 0.1},
        clip={
            "num_frames": 1,
            "frame_size": (224, 224),
            "short_side": 248,  # the crop is 0.9 of the shorter side
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
        },
    ),
    "mini_vit": Architecture(  # the CIFAR-10 study
        usual_size="",
        sizes={"": {"width": 128, "depth": 4, "num_heads": 4, "head_width": 128, "mlp_width": 256}},
        defaults={
            "tokenizer": "tubelet",
            "tubelet": (1, 6, 6),
            "dropout": 0.1,
            "attention_dropout": 0.1,
            **_token_learner(version="v1", pooling="mean"),
        },
        clip={"num_frames": 1, "frame_size": (48, 48), "short_side": 52, "mean": (0.0,) * 3, "std": (1.0,) * 3},
    ),
    "pytorchvideo": Architecture(  # the model zoo's names; clips as it trains them
        usual_size="x3d_s",
        sizes={name: {} for name in ("x3d_xs", "x3d_s", "x3d_m", "slow_r50", "slowfast_r50", "r2plus1d_r50")}
        | {name: {"stochastic_depth": 0.0} for name in ("mvit_b_16x4", "mvit_b_32x3")},
        defaults={"dropout": 0.5},
        clip={"num_frames": 16, "frame_size": (224, 224), "mean": (0.45,) * 3, "std": (0.225,) * 3},
        clips={
            "x3d_xs": {"num_frames": 4, "frame_size": (160, 160)},
            "x3d_s": {"num_frames": 13, "frame_size": (160, 160)},
            "slow_r50": {"num_frames": 8},
            "slowfast_r50": {"num_frames": 32},
            "mvit_b_32x3": {"num_frames": 32},
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class TokenLearnerConfig:
    """A TokenLearner stage between two blocks: N tokens per timestep in, `num_tokens` out."""

    num_tokens: int | None = None
    """Tokens per timestep that remain (the papers use 8 or 16); 0 builds the model without TokenLearner."""
    after_block: int | None = None
    """Number of blocks before TokenLearner: `8at3` in the papers' notation is 8 tokens after block 3."""
    version: Literal["v1", "v1.1", "average", "merge"] | None = None
    """`v1`: four 3x3 convolutions and a sigmoid (the paper's experiments); `v1.1`: an MLP and a softmax over space;
    baselines: `average` pooling of the grid, `merge` of similar tokens (ToMe)."""
    pooling: Literal["sum", "mean"] | None = None
    """`v1` only: sum (the authors' code) or mean over space of maps times features."""
    hidden: int | None = None
    """Maps that are computed, of which the first `num_tokens` are used; default: num_tokens."""
    elastic: bool | None = None
    """Let learned tokens attend to earlier ones alone, and train all numbers of them, to choose one at run time."""
    fuser: bool | None = None
    """Wrap every later block as TokenLearner -> block -> TokenFuser, which restores the number of tokens (vivit)."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The model. A key left at null takes its value from architecture and size."""

    architecture: Literal["vivit", "t2t_vit", "mini_vit", "pytorchvideo"] = "vivit"
    """Family: ViViT, T2T-ViT (images), the mini-ViT of the CIFAR-10 study (images), or a model of pytorchvideo."""
    size: str | int = ""
    """Ti, S, B, L, H (vivit), 7 to 24 (t2t_vit) or a name such as x3d_m (pytorchvideo); empty: B, 14 or x3d_s."""
    form: Literal["joint", "factorised_encoder", "factorised_self_attention", "factorised_dot_product"] | None = None
    """Models 1, 2, 3 and 4 of the ViViT paper: which axes attend to each other (vivit)."""
    width: int | None = None
    """Token width D."""
    depth: int | None = None
    """Number of blocks (for the factorised encoder: spatial blocks)."""
    num_heads: int | None = None
    """Number of attention heads."""
    head_width: int | None = None
    """Width of a head where it is not width / num_heads (mini_vit)."""
    mlp_width: int | None = None
    """Hidden width of the MLPs; the default is a multiple of the width."""
    temporal_depth: int | None = None
    """Blocks of the factorised encoder's temporal encoder; 0 averages over time instead (vivit)."""
    tokenizer: Literal["tubelet", "t2t_performer", "t2t_transformer"] | None = None
    """Tubelets by one projection, or the tokens-to-token module of T2T-ViT on each frame."""
    tubelet: tuple[int, int, int] | None = None
    """Frames, height and width (vivit, mini_vit); with T2T tokens [1, 16, 16], in mini_vit [1, 6, 6]."""
    tubelet_sampling: Literal["tubelet", "uniform"] | None = None
    """`uniform`: 2-D patches of num_frames / tubelet[0] evenly spaced frames instead of tubelets (vivit)."""
    pooling: Literal["cls", "first", "mean", "max", "sum", "mean_norm", "attention", "attention_mlp"] | None = None
    """Class token, first patch, a reduction over tokens, a norm after the mean in place of that before it (VideoMAE),
    attention with a learned query and a norm (VideoPrism) or a residual MLP (SigLIP) (vivit)."""
    pooling_width: int | None = None
    """Total width of the heads of `attention` pooling; default: width (vivit)."""
    pooled_norm_eps: float | None = None
    """Epsilon of the norm after pooling; default: norm_eps (vivit)."""
    temporal_input: Literal["pooled", "tokens", "places"] | None = None
    """Input of the temporal encoder: pooled timesteps, all tokens, or those of each place (VideoPrism) (vivit)."""
    attention_order: Literal["time_space", "space_time"] | None = None
    """Order of the two attentions in a block of factorised self-attention (vivit)."""
    positions: Literal["learned", "sincos_1d", "sincos_3d"] | None = None
    """Position embedding: learned, or fixed sines and cosines over the sequence or over (t, h, w) (vivit)."""
    position_std: float | None = None
    """Standard deviation of learned positions at the start; about 1 trains faster where places decide (vivit)."""
    num_registers: int | None = None
    """Learned tokens beside those of the grid that pooling does not see (DINOv2) (vivit)."""
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"] | None = None
    """GELU of the blocks: exact, or approximated by tanh (ViViT, SigLIP) or a sigmoid (OpenAI's CLIP) (vivit)."""
    norm_eps: float | None = None
    """Epsilon of the norms (vivit)."""
    input_norm: bool | None = None
    """A norm before the first block (CLIP) (vivit)."""
    layer_scale: float | None = None
    """Start of a learned factor for each channel of each branch (DeiT III, DINOv2); 0 for none (vivit)."""
    attention_softcap: float | None = None
    """c of c · tanh(logits / c), applied to the logits of attention (VideoPrism: 50); 0 for none (vivit)."""
    dropout: float | None = None
    """Dropout after the positions and inside blocks; before the classifier (pytorchvideo)."""
    attention_dropout: float | None = None
    """Dropout on attention probabilities."""
    stochastic_depth: float | None = None
    """Probability of skipping a branch of the last block; it rises linearly from 0 at the first."""
    stochastic_depth_rescale: bool | None = None
    """Divide kept branches by the probability of keeping them, as timm does and ViViT's code does not (vivit)."""
    token_width: int | None = None
    """Width inside the token module (t2t_vit)."""
    token_dropout: float | None = None
    """Dropout inside the Performer token module, which the published models have without any other (t2t_vit)."""
    token_learner: TokenLearnerConfig = field(default_factory=TokenLearnerConfig)
    """TokenLearner (vivit, mini_vit)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", str(self.size))
        require_choices(self, "model")
        require_choices(self.token_learner, "model.token_learner")
        sizes = [size for size in ARCHITECTURES[self.architecture].sizes if size]
        require(self.size in ["", *sizes], "model.size", self.size, ", ".join(sizes) or "'' (one size)")
        known = _filled_in(self)
        for key, value in _given(self).items():
            if key not in known:
                raise UserError(f"model.{key} is {value!r}; allowed: null with {_family(self)}, which has no {key}")
        numbers = {key: value for key, value in known.items() if value is not None}
        for key in filter(numbers.__contains__, _LEAST):
            require(numbers[key] >= _LEAST[key], f"model.{key}", numbers[key], f"{_LEAST[key]} or more")
        for key in ("norm_eps", "pooled_norm_eps"):
            require(numbers.get(key, 1) > 0, f"model.{key}", numbers.get(key), "above 0")
        for key in ("dropout", "attention_dropout", "stochastic_depth", "token_dropout"):
            require(0 <= known.get(key, 0) < 1, f"model.{key}", known.get(key), "0 or more, below 1")
        tubelet = known.get("tubelet", (1, 1, 1))
        require(min(tubelet) >= 1, "model.tubelet", tubelet, "three values of 1 or more")
        if known.get("token_learner.pooling") == "mean":
            allowed = f"sum with version {known['token_learner.version']}, whose maps already average"
            require(known["token_learner.version"] == "v1", "model.token_learner.pooling", "mean", allowed)
        if known.get("token_learner.num_tokens"):
            _check_token_learner(known)
        if self.architecture == "t2t_vit":
            allowed = f"t2t_performer or t2t_transformer with {_family(self)}"
            require(known["tokenizer"] != "tubelet", "model.tokenizer", self.tokenizer, allowed)


_LEAST = dict.fromkeys(("width", "depth", "num_heads", "head_width", "mlp_width"), 1)
_LEAST |= {"temporal_depth": 0, "token_width": 2, "token_learner.num_tokens": 0, "token_learner.after_block": 0}
_LEAST |= {"num_registers": 0, "position_std": 0, "layer_scale": 0, "attention_softcap": 0, "pooling_width": 1}


def _check_token_learner(known: Mapping[str, Any]) -> None:
    """Raise a `UserError` for settings that exclude each other."""
    key, names = "model.token_learner", ("num_tokens", "hidden", "version", "elastic")
    count, hidden, version, elastic = (known[f"token_learner.{name}"] for name in names)
    require(hidden is None or hidden >= count, f"{key}.hidden", hidden, f"{count} or more, {key}.num_tokens")
    allowed = f"v1 or v1.1 with {key}.elastic: the baselines learn no tokens"
    require(not elastic or version.startswith("v"), f"{key}.version", version, allowed)
    if elastic or hidden or version in ("average", "merge"):
        reason = f"with {key}.{'elastic' if elastic else 'hidden' if hidden else f'version {version}'}"
        values = {"token_learner.fuser": False, "pooling": "mean", "num_registers": 0, "temporal_input": "pooled"}
        for other, value in values.items():
            require(known.get(other, value) == value, f"model.{other}", known.get(other), f"{value} {reason}")
    form, allowed = known.get("form", "joint"), "joint or factorised_encoder: tokens of version merge have no place"
    require(version != "merge" or form in ("joint", "factorised_encoder"), "model.form", form, allowed)


def resolve_model(config: ModelConfig) -> ModelConfig:
    """Fill in all keys of the architecture."""
    filled = _filled_in(config)
    learner = {key.partition(".")[2]: filled.pop(key) for key in list(filled) if "." in key}
    size = config.size or ARCHITECTURES[config.architecture].usual_size
    return replace(config, size=size, **filled, token_learner=TokenLearnerConfig(**learner))


def model_arguments(config: ModelConfig, clip: ClipConfig) -> dict[str, Any]:
    """Return the keyword arguments that build the model of a resolved configuration, apart from `num_classes`."""
    names = {"token_learner.version": "learner_version", "token_learner.pooling": "learner_pooling"}
    settings = {names.get(key, key.rpartition(".")[2]): value for key, value in _given(config).items()}
    settings |= {"num_tokens": maps} if (maps := settings.pop("hidden", 0)) else {}
    settings.pop("elastic", None)
    if clip.background:
        require(config.architecture == "vivit", "clip.background", True, f"false with {_family(config)}")
        settings["background"] = True
    return {**settings, "num_frames": clip.num_frames, "frame_size": clip.frame_size}


def _given(config: ModelConfig) -> dict[str, Any]:
    """Settings other than null, by dotted key, without architecture and size."""
    keys = dotted(asdict(config))
    return {key: value for key, value in keys.items() if value is not None and key not in ("architecture", "size")}


def _filled_in(config: ModelConfig) -> dict[str, Any]:
    """Settings of the architecture by dotted key: what is given, over the size, over the defaults."""
    family = ARCHITECTURES[config.architecture]
    size = dict(family.sizes[str(config.size) or family.usual_size])
    ratio = size.pop("mlp_ratio", None)
    given = _given(config)
    has = {*family.defaults, *size} | ({"mlp_width"} if ratio else set())
    filled = {**family.defaults, **size, **{key: value for key, value in given.items() if key in has}}
    if ratio:
        filled.setdefault("mlp_width", ratio * filled["width"])
    return filled


def _family(config: ModelConfig) -> str:
    return f"model.architecture {config.architecture} {config.size}".rstrip()
