"""RandAugment for clips: a few random operations, each the same for all frames of a clip.

Two published sets of operations have different scales of magnitudes. `vivit`: color and cut-out, always applied (1 in
12 is "nothing"); more than 10 extrapolates. `timm`: color, rotation, shear and translation, each with chance 1/2.

Sources: scenic `video_ops.distort_image_with_randaugment` with the levels of TensorFlow's model garden; timm
`rand_augment_transform("rand-...-inc1")`. Pixels equal those of Pillow's operations. Statistics (automatic contrast,
equalization, the gray level of contrast) are those of the whole clip, as in scenic, which avoids flicker. Two errors of
published code are not repeated: TensorFlow's contrast is relative to white for large images, and timm draws an
interpolation for each frame, where here it is bilinear.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from vidtl.config import AugmentationConfig

Level = Callable[[float, float], tuple[float, ...]]
"""(magnitude, sign of -1 or 1) -> arguments of the operation"""

_FILL = 128.0  # gray level outside of a rotated, sheared or moved frame


class Operation(NamedTuple):
    """A key of `OPERATIONS`, and the arguments for all frames of a clip."""

    name: str
    arguments: tuple[float, ...] = ()


def draw_operations(
    config: AugmentationConfig, frame_size: tuple[int, int], rng: np.random.Generator
) -> tuple[Operation, ...]:
    """Draw the operations of one clip. Draws for each: operation, chance, sign, two places, noise."""
    space, probability = SPACES[config.rand_augment_space]
    names, operations = list(space), []
    for _ in range(config.rand_augment_num_ops):
        which, chance, sign, down, right = rng.random(5)
        magnitude = config.rand_augment_magnitude + config.rand_augment_std * rng.normal()
        name = names[int(which * len(names))]
        if name == "nothing" or chance >= probability:
            continue
        limit = 10.0 if config.rand_augment_space == "timm" else math.inf
        arguments = space[name](min(max(magnitude, 0.0), limit), 1.0 if sign < 0.5 else -1.0)
        if name == "cutout":
            arguments += (int(down * frame_size[0]), int(right * frame_size[1]))
        operations.append(Operation(name, arguments))
    return tuple(operations)


def apply_operations(rgb_TCHW: torch.Tensor, operations: tuple[Operation, ...]) -> torch.Tensor:
    """Apply the operations to one clip, float32 [T, 3, H, W] in 0..1, rounded to the 256 levels that they work on."""
    if not operations:
        return rgb_TCHW
    pixels_TCHW = (rgb_TCHW * 255).round().to(torch.uint8)
    for name, arguments in operations:
        pixels_TCHW = OPERATIONS[name](pixels_TCHW, *arguments)
    return pixels_TCHW.float() / 255


def _whole_clip(operation: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Apply `operation` to the frames as one tall image, so that its statistics are those of the clip."""

    def apply(pixels_TCHW: torch.Tensor, *arguments: float) -> torch.Tensor:
        tall = operation(rearrange(pixels_TCHW, "T C H W -> C (T H) W"), *arguments)
        return rearrange(tall, "C (T H) W -> T C H W", T=len(pixels_TCHW))  # type: ignore[no-any-return]

    return apply


def _solarize_add(pixels_TCHW: torch.Tensor, added: float) -> torch.Tensor:
    brighter = (pixels_TCHW.short() + int(added)).clamp_(max=255).to(torch.uint8)
    return torch.where(pixels_TCHW < 128, brighter, pixels_TCHW)


def _affine(pixels_TCHW: torch.Tensor, move: tuple[float, float], shear: tuple[float, float]) -> torch.Tensor:
    angles = [math.degrees(math.atan(slope)) for slope in shear]
    method = 0.0, list(move), 1.0, angles, InterpolationMode.BILINEAR
    return functional.affine(pixels_TCHW, *method, fill=[_FILL], center=[0.0, 0.0])  # type: ignore[no-any-return]


def _cutout(pixels_TCHW: torch.Tensor, half: float, row: float, column: float) -> torch.Tensor:
    """Blacken a square of side 2 x `half` around a pixel in all frames; parts of it may lie outside."""
    out = pixels_TCHW.clone()
    rows, columns = (slice(max(int(center - half), 0), int(center + half)) for center in (row, column))
    out[:, :, rows, columns] = 0
    return out


OPERATIONS: dict[str, Callable[..., torch.Tensor]] = {
    "autocontrast": _whole_clip(functional.autocontrast),
    "equalize": _whole_clip(functional.equalize),
    "invert": functional.invert,
    "posterize": lambda pixels_TCHW, bits: pixels_TCHW if bits >= 8 else functional.posterize(pixels_TCHW, int(bits)),
    "solarize": lambda pixels_TCHW, least: pixels_TCHW if least > 255 else functional.solarize(pixels_TCHW, least),
    "solarize_add": _solarize_add,
    "color": functional.adjust_saturation,
    "contrast": _whole_clip(functional.adjust_contrast),
    "brightness": functional.adjust_brightness,
    "sharpness": functional.adjust_sharpness,
    "rotate": partial(functional.rotate, interpolation=InterpolationMode.BILINEAR, fill=[_FILL]),
    "shear_x": lambda pixels_TCHW, slope: _affine(pixels_TCHW, (0.0, 0.0), (slope, 0.0)),
    "shear_y": lambda pixels_TCHW, slope: _affine(pixels_TCHW, (0.0, 0.0), (0.0, slope)),
    "translate_x": lambda pixels_TCHW, share: _affine(pixels_TCHW, (share * pixels_TCHW.shape[3], 0.0), (0.0, 0.0)),
    "translate_y": lambda pixels_TCHW, share: _affine(pixels_TCHW, (0.0, share * pixels_TCHW.shape[2]), (0.0, 0.0)),
    "cutout": _cutout,
}
"""uint8 [T, 3, H, W] and the operation's arguments to the same shape."""


_PLAIN: dict[str, Level] = dict.fromkeys(("autocontrast", "equalize", "invert"), lambda magnitude, sign: ())
_ENHANCED = ("color", "contrast", "brightness", "sharpness")

VIVIT: dict[str, Level] = {
    **_PLAIN,
    "posterize": lambda magnitude, sign: (int(magnitude / 10 * 4),),
    "solarize": lambda magnitude, sign: (min(int(magnitude / 10 * 256), 255),),
    **dict.fromkeys(_ENHANCED, lambda magnitude, sign: (magnitude / 10 * 1.8 + 0.1,)),
    "cutout": lambda magnitude, sign: (int(magnitude / 10 * 40),),
    "solarize_add": lambda magnitude, sign: (int(magnitude / 10 * 110),),
    "nothing": lambda magnitude, sign: (),
}

TIMM: dict[str, Level] = {
    **_PLAIN,
    "rotate": lambda magnitude, sign: (sign * magnitude / 10 * 30,),
    "posterize": lambda magnitude, sign: (4 - int(magnitude / 10 * 4),),
    "solarize": lambda magnitude, sign: (256 - min(int(magnitude / 10 * 256), 256),),
    "solarize_add": lambda magnitude, sign: (min(int(magnitude / 10 * 110), 128),),
    **dict.fromkeys(_ENHANCED, lambda magnitude, sign: (max(0.1, 1 + sign * magnitude / 10 * 0.9),)),
    **dict.fromkeys(("shear_x", "shear_y"), lambda magnitude, sign: (sign * magnitude / 10 * 0.3,)),
    **dict.fromkeys(("translate_x", "translate_y"), lambda magnitude, sign: (sign * magnitude / 10 * 0.45,)),
}

SPACES: dict[str, tuple[dict[str, Level], float]] = {"vivit": (VIVIT, 1.0), "timm": (TIMM, 0.5)}
"""Operations with their levels, and the probability that a drawn one is applied."""
