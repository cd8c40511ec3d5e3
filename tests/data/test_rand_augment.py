"""RandAugment: each operation against Pillow, published levels, and the same change for all frames."""

import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image, ImageEnhance, ImageOps

from vidtl.config import AugmentationConfig
from vidtl.data.rand_augment import OPERATIONS, SPACES, TIMM, VIVIT, Operation, apply_operations, draw_operations
from vidtl.runtime.seeding import generator

FRAMES, HEIGHT, WIDTH = 3, 40, 56
GRAY = (128, 128, 128)


@pytest.fixture(scope="module")
def pixels():
    """Smooth frames of different brightness, uint8 TCHW, with neither black nor white."""
    t, y, x = np.meshgrid(np.arange(FRAMES), np.arange(HEIGHT), np.arange(WIDTH), indexing="ij")
    waves = [np.sin(x / 5 + t) * np.cos(y / (4 + c)) for c in range(3)]
    values = 118 + 70 * np.stack(waves, axis=1) + 15 * (t[:, None] - 1)
    return torch.from_numpy(values.round().astype(np.uint8))


def tall(pixels):
    return Image.fromarray(rearrange(pixels, "T C H W -> (T H) W C").numpy())


def frames(image):
    return rearrange(torch.from_numpy(np.array(image)), "(T H) W C -> T C H W", T=FRAMES)


def each(pixels, change):
    images = [change(Image.fromarray(rearrange(frame, "C H W -> H W C").numpy())) for frame in pixels]
    return torch.stack([rearrange(torch.from_numpy(np.array(image)), "H W C -> C H W") for image in images])


def affine(*matrix):
    method = Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    return lambda image: image.transform(image.size, *method, fillcolor=GRAY)


WHOLE_CLIP = {
    ("autocontrast", ()): ImageOps.autocontrast,
    ("equalize", ()): ImageOps.equalize,
    ("contrast", (1.7,)): lambda image: ImageEnhance.Contrast(image).enhance(1.7),
    ("contrast", (0.3,)): lambda image: ImageEnhance.Contrast(image).enhance(0.3),
}
EACH_FRAME = {
    ("invert", ()): ImageOps.invert,
    ("posterize", (2,)): lambda image: ImageOps.posterize(image, 2),
    ("posterize", (8,)): lambda image: image,
    ("solarize", (100,)): lambda image: ImageOps.solarize(image, 100),
    ("solarize", (256,)): lambda image: image,
    ("solarize_add", (90,)): lambda image: image.point([i + 90 * (i < 128) for i in range(256)] * 3),
    ("color", (1.8,)): lambda image: ImageEnhance.Color(image).enhance(1.8),
    ("color", (0.2,)): lambda image: ImageEnhance.Color(image).enhance(0.2),
    ("brightness", (1.4,)): lambda image: ImageEnhance.Brightness(image).enhance(1.4),
    ("sharpness", (1.9,)): lambda image: ImageEnhance.Sharpness(image).enhance(1.9),
    ("sharpness", (0.1,)): lambda image: ImageEnhance.Sharpness(image).enhance(0.1),
}
GEOMETRY = {
    ("rotate", (20.0,)): lambda image: image.rotate(20, Image.Resampling.BILINEAR, fillcolor=GRAY),
    ("shear_x", (0.2,)): affine(1, 0.2, 0, 0, 1, 0),
    ("shear_y", (-0.2,)): affine(1, 0, 0, -0.2, 1, 0),
    ("translate_x", (0.25,)): affine(1, 0, -0.25 * WIDTH, 0, 1, 0),
    ("translate_y", (-0.25,)): affine(1, 0, 0, 0, 1, 0.25 * HEIGHT),
}


@pytest.mark.parametrize("case", [*WHOLE_CLIP, *EACH_FRAME], ids=str)
def test_color_operations_are_pillows(pixels, case):
    name, arguments = case
    out = OPERATIONS[name](pixels, *arguments)
    expected = frames(WHOLE_CLIP[case](tall(pixels))) if case in WHOLE_CLIP else each(pixels, EACH_FRAME[case])
    difference = (out.int() - expected.int()).abs()
    assert out.dtype == torch.uint8
    # Pillow rounds in between: 1 level for blends, and its whole-number mean gray for contrast.
    assert difference.max() <= (0 if name in ("invert", "posterize", "solarize", "solarize_add", "equalize") else 2)


@pytest.mark.parametrize("case", GEOMETRY, ids=str)
def test_geometric_operations_are_pillows(pixels, case):
    change = GEOMETRY[case]
    name, arguments = case
    moved, opposite = (OPERATIONS[name](pixels, sign * arguments[0]).int() for sign in (1, -1))
    expected = each(pixels, change).int()
    # Which way is drawn; which of the two Pillow's sign means is not. Edges are blended differently.
    errors = [(out - expected).abs().float().quantile(0.9) for out in (moved, opposite)]
    assert min(errors) <= 4 < max(errors)
    assert (moved - pixels.int()).abs().float().mean() > 5


def test_cutout_is_one_black_square_in_all_frames(pixels):
    out = OPERATIONS["cutout"](pixels, 8, 20, 3)
    black = (out == 0).all(dim=1)
    assert black.sum() == FRAMES * 16 * 11
    assert black[:, 12:28, :11].all()
    assert torch.equal(out[:, :, :, 11:], pixels[:, :, :, 11:])


@pytest.mark.parametrize("name", OPERATIONS)
def test_frames_of_a_still_clip_stay_alike(pixels, name):
    fixed = {"cutout": (5, 10, 10), "posterize": (3,), "autocontrast": (), "equalize": (), "invert": ()}
    still = pixels[:1].expand(FRAMES, -1, -1, -1)
    out = OPERATIONS[name](still, *fixed.get(name, (0.2,)))
    assert torch.equal(out, out[:1].expand_as(out))


@pytest.mark.parametrize(
    ("magnitude", "vivit", "timm"),
    [
        (0.0, [(0,), (0,), (0,), (0.1,), (0,)], [(0.0,), (4,), (256,), (0,), (1.0,), (0.0,), (0.0,)]),
        (7.0, [(2,), (179,), (77,), (1.36,), (28,)], [(21.0,), (2,), (77,), (77,), (1.63,), (0.21,), (0.315,)]),
        (10.0, [(4,), (255,), (110,), (1.9,), (40,)], [(30.0,), (0,), (0,), (110,), (1.9,), (0.3,), (0.45,)]),
        (20.0, [(8,), (255,), (220,), (3.7,), (80,)], None),  # ViViT on SSv2
    ],
)
def test_levels_are_the_published_ones(magnitude, vivit, timm):
    names = ("posterize", "solarize", "solarize_add", "color", "cutout")
    assert [VIVIT[name](magnitude, 1.0) for name in names] == [pytest.approx(value) for value in vivit]
    if timm:
        names = ("rotate", "posterize", "solarize", "solarize_add", "color", "shear_x", "translate_y")
        assert [TIMM[name](magnitude, 1.0) for name in names] == [pytest.approx(value) for value in timm]
        assert TIMM["rotate"](magnitude, -1.0) == (-timm[0][0],)
        assert TIMM["color"](magnitude, -1.0) == (pytest.approx(max(2 - timm[4][0], 0.1)),)


@pytest.mark.parametrize(("space", "mean_count"), [("vivit", 4 * 11 / 12), ("timm", 2.0)])
def test_draws(space, mean_count):
    config = AugmentationConfig(
        rand_augment_num_ops=4, rand_augment_magnitude=7, rand_augment_std=0.5, rand_augment_space=space
    )
    draws = [draw_operations(config, (HEIGHT, WIDTH), generator(0, index)) for index in range(800)]
    assert abs(np.mean([len(operations) for operations in draws]) - mean_count) < 0.12
    assert {operation.name for operations in draws for operation in operations} == set(SPACES[space][0]) - {"nothing"}
    assert draws[3] == draw_operations(config, (HEIGHT, WIDTH), generator(0, 3))
    colors = [operation.arguments[0] for operations in draws for operation in operations if operation.name == "color"]
    spread = np.abs(np.array(colors) - 1)
    assert abs(spread.mean() - (0.36 if space == "vivit" else 0.63)) < 0.02
    assert 0.02 < spread.std() < 0.15


def test_operations_follow_one_another(pixels):
    operations = (Operation("invert"), Operation("posterize", (3,)))
    expected = OPERATIONS["posterize"](OPERATIONS["invert"](pixels), 3).float() / 255
    assert torch.equal(apply_operations(pixels.float() / 255, operations), expected)
