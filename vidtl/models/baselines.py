"""Video models of pytorchvideo as baselines: the same clips, the same training and evaluation, other networks.

Networks come from `pytorchvideo.models` with the settings of its model zoo and with random weights. They return logits
(the zoo's softmax is left out), and average over whatever remains of the clip at the end, where the zoo's pooling
windows fit one size only; at the zoo's training sizes that is the same.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from vidtl.config import ClipConfig, ModelConfig, PytorchVideoConfig
from vidtl.errors import UserError
from vidtl.models.hub import VideoModel

SLOWFAST_ALPHA = 4
"""SlowFast's slow pathway sees one frame of so many."""

SMALLEST_SIDE = 32
"""Every network here makes one place of 32 x 32 pixels."""

FRAMES = {"x3d_xs": 4, "x3d_s": 13, "x3d_m": 16, "mvit_b_16x4": 16, "mvit_b_32x3": 32}
"""Frames of the models whose name tells them: X3D's three and MViT's two differ in nothing else."""

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

    Raises:
        UserError: frames or a frame size that the network cannot take, or input of another shape.
    """

    def __init__(self, model_config: ModelConfig, clip_config: ClipConfig, num_classes: int) -> None:
        super().__init__(model_config, clip_config, num_classes)
        config = model_config.pytorchvideo
        _check_clip(config.name, clip_config)
        self.clip_shape = (clip_config.num_frames, 3, *clip_config.frame_size)
        self.two_pathways = config.name == "slowfast_r50"
        self.net = BUILDERS[config.name](_import_models(), config, clip_config, num_classes)

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        """Normalised clips `[B, T, C, H, W]` to scores `[B, K]`."""
        if tuple(input_BTCHW.shape[1:]) != self.clip_shape:
            raise UserError(
                f"input has shape {list(input_BTCHW.shape)}; allowed: [B, T, C, H, W] with T, C, H, W = "
                f"{list(self.clip_shape)}, the clip that the model was built for"
            )
        fast_BCTHW = rearrange(input_BTCHW, "B T C H W -> B C T H W")
        logits_BK: Tensor = self.net([_slow_pathway(fast_BCTHW), fast_BCTHW] if self.two_pathways else fast_BCTHW)
        return logits_BK

    def layers(self) -> list[list[str]]:
        """Stem, stages or blocks, head."""
        blocks = [[f"net.blocks.{i}"] for i in range(len(self.net.blocks))]  # type: ignore[arg-type]
        if not hasattr(self.net, "norm_embed"):  # convolutional networks count their stem and head as blocks
            return blocks
        return [["net.patch_embed", "net.cls_positional_encoding"], *blocks, ["net.norm_embed", "net.head"]]

    def repeated_blocks(self) -> list[nn.Module]:
        """Stages of a convolutional network, blocks of MViT."""
        return list(self.net.blocks)  # type: ignore[arg-type]

    def no_weight_decay(self) -> set[str]:
        """MViT's class token and positions."""
        return {name for name, _ in self.named_parameters() if "cls_positional_encoding" in name}


def _slow_pathway(fast_BCTHW: Tensor) -> Tensor:
    """Every fourth frame or so, first and last included, as the zoo's weights were trained."""
    frames = fast_BCTHW.shape[2]
    indices = torch.linspace(0, frames - 1, frames // SLOWFAST_ALPHA, device=fast_BCTHW.device).long()
    return fast_BCTHW.index_select(2, indices)


def _check_clip(name: str, clip: ClipConfig) -> None:
    key = f"with model.pytorchvideo.name {name}"
    frames, sides = clip.num_frames, clip.frame_size
    if name in FRAMES and frames != FRAMES[name]:
        raise UserError(f"clip.num_frames is {frames}; allowed: {FRAMES[name]} {key}")
    if name == "slowfast_r50" and frames % SLOWFAST_ALPHA:
        raise UserError(f"clip.num_frames is {frames}; allowed: multiples of {SLOWFAST_ALPHA} {key}")
    if min(sides) < SMALLEST_SIDE:
        raise UserError(f"clip.frame_size is {list(sides)}; allowed: sides of {SMALLEST_SIDE} pixels or more {key}")
    if name.startswith("mvit") and any(side % SMALLEST_SIDE for side in sides):
        raise UserError(f"clip.frame_size is {list(sides)}; allowed: multiples of {SMALLEST_SIDE} {key}")


def _import_models() -> Any:
    """pytorchvideo's models; they take seconds to import, so that only the models made of them wait for that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)  # decorators of its layers
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        import pytorchvideo.models
        import pytorchvideo.models.r2plus1d
        import pytorchvideo.models.x3d
    return pytorchvideo.models


def _x3d(models: Any, config: PytorchVideoConfig, clip: ClipConfig, num_classes: int) -> nn.Module:
    net: nn.Module = models.x3d.create_x3d(
        input_clip_length=clip.num_frames,
        input_crop_size=min(clip.frame_size),
        model_num_class=num_classes,
        dropout_rate=config.dropout,
        head_activation=None,
    )
    net.blocks[-1].pool.pool = nn.AdaptiveAvgPool3d(1)  # type: ignore[index, union-attr, assignment]
    return net


def _slow_r50(models: Any, config: PytorchVideoConfig, clip: ClipConfig, num_classes: int) -> nn.Module:
    net: nn.Module = models.create_resnet(
        model_depth=50,
        model_num_class=num_classes,
        dropout_rate=config.dropout,
        stem_conv_kernel_size=(1, 7, 7),
        head_pool=nn.AdaptiveAvgPool3d,
    )
    return net


def _slowfast_r50(models: Any, config: PytorchVideoConfig, clip: ClipConfig, num_classes: int) -> nn.Module:
    net: nn.Module = models.create_slowfast(
        model_depth=50,
        model_num_class=num_classes,
        dropout_rate=config.dropout,
        slowfast_fusion_conv_kernel_size=(7, 1, 1),
        head_pool=nn.AdaptiveAvgPool3d,
        head_output_size=((1, 1, 1), (1, 1, 1)),  # one per pathway
    )
    return net


def _r2plus1d_r50(models: Any, config: PytorchVideoConfig, clip: ClipConfig, num_classes: int) -> nn.Module:
    net: nn.Module = models.r2plus1d.create_r2plus1d(
        model_depth=50,
        model_num_class=num_classes,
        dropout_rate=config.dropout,
        head_pool=nn.AdaptiveAvgPool3d,
        head_activation=None,
    )
    return net


def _mvit_b(models: Any, config: PytorchVideoConfig, clip: ClipConfig, num_classes: int) -> nn.Module:
    device = torch.get_default_device()
    with torch.device("cpu"):  # its builder reads widths from tensors, which the meta device has no values for
        net: nn.Module = models.create_multiscale_vision_transformers(
            spatial_size=clip.frame_size,
            temporal_size=clip.num_frames,
            head_dropout_rate=config.dropout,
            droppath_rate_block=config.stochastic_depth,
            head_num_classes=num_classes,
            **_MVIT,
        )
    return net.to(device)


BUILDERS: dict[str, Callable[[Any, PytorchVideoConfig, ClipConfig, int], nn.Module]] = {
    "x3d_xs": _x3d,
    "x3d_s": _x3d,
    "x3d_m": _x3d,
    "slow_r50": _slow_r50,
    "slowfast_r50": _slowfast_r50,
    "r2plus1d_r50": _r2plus1d_r50,
    "mvit_b_16x4": _mvit_b,
    "mvit_b_32x3": _mvit_b,
}
"""Every `model.pytorchvideo.name`."""
