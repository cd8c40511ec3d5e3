"""Families and sizes of models: the one table that names, defaults, checks and error messages are derived from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A family of models."""

    usual_size: str
    """Row of `sizes` that an empty `model.size` stands for."""
    sizes: Mapping[str, Mapping[str, Any]]
    """Settings of each size, by their keys in `model`; `mlp_ratio` is `mlp_width` / `width`."""
    defaults: Mapping[str, Any]
    """Every other key that the family has, with its default."""
    clip: Mapping[str, Any]
    """Settings of `clip` that a model is made for by `create_model`."""
    clips: Mapping[str, Mapping[str, Any]]
    """What differs from `clip` in some sizes."""

    def clip_of(self, size: str) -> dict[str, Any]:
        """Return the settings of `clip` for one size."""
        return {**self.clip, **self.clips.get(size or self.usual_size, {})}


def _sizes(*rows: tuple[str, int, int, int, int]) -> dict[str, dict[str, int]]:
    keys = ("width", "depth", "num_heads", "mlp_ratio")
    return {name: dict(zip(keys, numbers, strict=True)) for name, *numbers in rows}


_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "stochastic_depth": 0.0}

ARCHITECTURES: dict[str, Architecture] = {
    "vivit": Architecture(  # ViViT section 4.1; Ti and S as in the TokenLearner configurations
        usual_size="B",
        sizes=_sizes(
            ("Ti", 192, 12, 3, 4),
            ("S", 384, 12, 6, 4),
            ("B", 768, 12, 12, 4),
            ("L", 1024, 24, 16, 4),
            ("H", 1280, 32, 16, 4),
        ),
        defaults={
            "form": "factorised_encoder",
            "temporal_depth": 4,
            "tokenizer": "tubelet",
            "tubelet": (2, 16, 16),
            "tubelet_sampling": "tubelet",
            "pooling": "mean",
            "temporal_input": "pooled",
            "attention_order": "time_space",
            "positions": "learned",
            **_DROPOUT,
            "stochastic_depth_rescale": False,
            "token_learner.num_tokens": 8,
            "token_learner.after_block": 3,
            "token_learner.version": "v1.1",
            "token_learner.pooling": "sum",
            "token_learner.fuser": False,
        },
        clip={"num_frames": 32, "frame_size": (224, 224)},
        clips={},
    ),
    "t2t_vit": Architecture(  # T2T-ViT, table 1
        usual_size="14",
        sizes=_sizes(
            ("7", 256, 7, 4, 2),
            ("10", 256, 10, 4, 2),
            ("12", 256, 12, 4, 2),
            ("14", 384, 14, 6, 3),
            ("19", 448, 19, 7, 3),
            ("24", 512, 24, 8, 3),
        ),
        defaults={"tokenizer": "t2t_performer", **_DROPOUT, "token_width": 64, "token_dropout": 0.1},
        clip={
            "num_frames": 1,
            "frame_size": (224, 224),
            "short_side": 248,  # the crop is 0.9 of the shorter side
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
        },
        clips={},
    ),
    "mini_vit": Architecture(  # the CIFAR-10 study
        usual_size="",
        sizes={"": {"width": 128, "depth": 4, "num_heads": 4, "head_width": 128, "mlp_width": 256}},
        defaults={
            "tokenizer": "tubelet",
            "tubelet": (1, 6, 6),
            "dropout": 0.1,
            "attention_dropout": 0.1,
            "token_learner.num_tokens": 8,
            "token_learner.after_block": 3,
            "token_learner.version": "v1",
            "token_learner.pooling": "mean",
        },
        clip={
            "num_frames": 1,
            "frame_size": (48, 48),
            "short_side": 52,
            "mean": (0.0, 0.0, 0.0),
            "std": (1.0, 1.0, 1.0),
        },
        clips={},
    ),
    "pytorchvideo": Architecture(  # the model zoo's names; clips as it trains them
        usual_size="x3d_s",
        sizes={
            "x3d_xs": {},
            "x3d_s": {},
            "x3d_m": {},
            "slow_r50": {},
            "slowfast_r50": {},
            "r2plus1d_r50": {},
            "mvit_b_16x4": {"stochastic_depth": 0.0},
            "mvit_b_32x3": {"stochastic_depth": 0.0},
        },
        defaults={"dropout": 0.5},
        clip={
            "num_frames": 16,
            "frame_size": (224, 224),
            "mean": (0.45, 0.45, 0.45),
            "std": (0.225, 0.225, 0.225),
        },
        clips={
            "x3d_xs": {"num_frames": 4, "frame_size": (160, 160)},
            "x3d_s": {"num_frames": 13, "frame_size": (160, 160)},
            "slow_r50": {"num_frames": 8},
            "slowfast_r50": {"num_frames": 32},
            "mvit_b_32x3": {"num_frames": 32},
        },
    ),
}
