"""Video models of pytorchvideo as baselines, with its zoo's settings and random weights.

They return logits and average over the remaining clip, where the zoo has a softmax and pooling windows of one size.
"""

import warnings
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from vidtl.config.checks import require
from vidtl.config.model import ARCHITECTURES
from vidtl.models.base import VideoModel

SLOWFAST_ALPHA = 4
"""Frames of SlowFast's fast pathway per frame of the slow one."""

SMALLEST_SIDE = 32
"""Pixels per place at the end of every network."""

_MVIT = {
    "embed_dim_mul": [[1, 2.0], [3, 2.0], [14, 2.0]],
    "atten_head_mul": [[1, 2.0], [3, 2.0], [14, 2.0]],
    "pool_q_stride_size": [[1, 1, 2, 2], [3, 1, 2, 2], [14, 1, 2, 2]],
    "pool_kv_stride_adaptive": [1, 8, 8],
    "pool_kvq_kernel": [3, 3, 3],
}
"""MViT-B (Fan et al., 2021): twice the width and heads, and half the resolution, from blocks 1, 3 and 14 on."""


class PytorchVideoModel(VideoModel):
    """A network of pytorchvideo: `input_BTCHW -> logits_BK`.

    `name` is a size of `model.architecture` pytorchvideo; the other arguments are the keys of `model` and `clip`.
    UserError: frames or a frame size that the network cannot take.
    """

    def __init__(
        self,
        *,
        name: str,
        dropout: float = 0.5,
        stochastic_depth: float = 0.0,
        num_frames: int,
        frame_size: tuple[int, int],
        num_classes: int,
    ) -> None:
        super().__init__(num_frames, frame_size, num_classes)
        _check_clip(name, num_frames, frame_size)
        self.two_pathways = name == "slowfast_r50"
        if name.startswith("mvit"):
            self.net = _mvit_b(num_frames, frame_size, num_classes, dropout, stochastic_depth)
        elif name.startswith("x3d"):
            self.net = _x3d(num_frames, frame_size, num_classes, dropout)
        else:
            self.net = _resnet(name, num_classes, dropout)

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        """Normalized clips `[B, T, C, H, W]` to scores `[B, K]`."""
        self.check_input(input_BTCHW)
        fast_BCTHW = rearrange(input_BTCHW, "B T C H W -> B C T H W")
        logits_BK: Tensor = self.net([_slow_pathway(fast_BCTHW), fast_BCTHW] if self.two_pathways else fast_BCTHW)
        return logits_BK

    def layers(self) -> list[list[str]]:
        """Stem, stages or blocks, head."""
        blocks = [[f"net.blocks.{i}"] for i in range(len(self.net.blocks))]  # type: ignore[arg-type]
        if not hasattr(self.net, "norm_embed"):  # stem and head of convolutional networks are blocks too
            return blocks
        return [["net.patch_embed", "net.cls_positional_encoding"], *blocks, ["net.norm_embed", "net.head"]]

    def repeated_blocks(self) -> list[nn.Module]:
        """Stages of a convolutional network, blocks of MViT."""
        return list(self.net.blocks)  # type: ignore[arg-type]

    def no_weight_decay(self) -> set[str]:
        """MViT's class token and positions."""
        return {name for name, _ in self.named_parameters() if "cls_positional_encoding" in name}


def _slow_pathway(fast_BCTHW: Tensor) -> Tensor:
    """Take about every fourth frame, first and last included, as the zoo's weights were trained."""
    frames = fast_BCTHW.shape[2]
    indices = torch.linspace(0, frames - 1, frames // SLOWFAST_ALPHA, device=fast_BCTHW.device).long()
    return fast_BCTHW.index_select(2, indices)


def _check_clip(name: str, num_frames: int, frame_size: tuple[int, int]) -> None:
    with_size, side, size = f"with model.size {name}", SMALLEST_SIDE, list(frame_size)
    if name.startswith(("x3d", "mvit")):  # sizes of X3D and of MViT differ in their frames only
        frames = ARCHITECTURES["pytorchvideo"].clip_of(name)["num_frames"]
        require(num_frames == frames, "clip.num_frames", num_frames, f"{frames} {with_size}")
    if name == "slowfast_r50":
        multiples = f"multiples of {SLOWFAST_ALPHA} {with_size}"
        require(num_frames % SLOWFAST_ALPHA == 0, "clip.num_frames", num_frames, multiples)
    require(min(size) >= side, "clip.frame_size", size, f"sides of {side} pixels or more {with_size}")
    fits = not (name.startswith("mvit") and any(length % side for length in size))
    require(fits, "clip.frame_size", size, f"multiples of {side} {with_size}")


def _import_models() -> Any:
    """Import pytorchvideo's models, which takes seconds, on first use."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit")  # decorators of its layers
        import pytorchvideo.models
        import pytorchvideo.models.r2plus1d
        import pytorchvideo.models.x3d
    return pytorchvideo.models


def _x3d(num_frames: int, frame_size: tuple[int, int], num_classes: int, dropout: float) -> nn.Module:
    net: nn.Module = _import_models().x3d.create_x3d(
        input_clip_length=num_frames,
        input_crop_size=min(frame_size),
        model_num_class=num_classes,
        dropout_rate=dropout,
        head_activation=None,
    )
    net.blocks[-1].pool.pool = nn.AdaptiveAvgPool3d(1)  # type: ignore[index, union-attr, assignment]
    return net


def _resnet(name: str, num_classes: int, dropout: float) -> nn.Module:
    models = _import_models()
    settings: dict[str, Any] = {"model_depth": 50, "model_num_class": num_classes, "dropout_rate": dropout}
    settings["head_pool"] = nn.AdaptiveAvgPool3d
    if name == "slow_r50":
        return models.create_resnet(**settings, stem_conv_kernel_size=(1, 7, 7))  # type: ignore[no-any-return]
    if name == "slowfast_r50":
        settings |= {"slowfast_fusion_conv_kernel_size": (7, 1, 1), "head_output_size": ((1, 1, 1), (1, 1, 1))}
        return models.create_slowfast(**settings)  # type: ignore[no-any-return]
    return models.r2plus1d.create_r2plus1d(**settings, head_activation=None)  # type: ignore[no-any-return]


def _mvit_b(
    num_frames: int, frame_size: tuple[int, int], num_classes: int, dropout: float, stochastic_depth: float
) -> nn.Module:
    device, models = torch.get_default_device(), _import_models()
    with torch.device("cpu"):  # the builder reads widths from tensors, which have no values on the meta device
        net: nn.Module = models.create_multiscale_vision_transformers(
            spatial_size=frame_size,
            temporal_size=num_frames,
            head_dropout_rate=dropout,
            droppath_rate_block=stochastic_depth,
            head_num_classes=num_classes,
            **_MVIT,
        )
    return net.to(device)
