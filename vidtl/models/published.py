"""Costs that papers print for their models, with the configurations that they belong to.

"GFLOPs" of all these sources are multiply-adds. Rows whose source is `ARITHMETIC` are printed nowhere: they follow from
the shapes of the layers. A note tells where a printed figure cannot belong to the model that it stands beside.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models.factory import parse_name

VIVIT = "ViViT"
VIDEO_TOKEN_LEARNER = "TokenLearner, Kinetics-400"
IMAGE_TOKEN_LEARNER = "TokenLearner, ImageNet"
T2T = "T2T-ViT"
MINI_VIT = "CIFAR-10 study"
PYTORCHVIDEO = "pytorchvideo, model zoo"
ARITHMETIC = "arithmetic"

NO_MATCH = "does not match: "
"""Start of the notes on figures that no count of the model gives."""

_NO_ATTENTION = f"{NO_MATCH}the study's counter leaves attention out"


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """A row of a table."""

    source: str
    name: str
    model: ModelConfig
    clip: ClipConfig
    num_classes: int
    gmacs: float | None
    """Multiply-adds of one view, in billions."""
    parameters_m: float | None
    """Parameters in millions."""
    note: str = ""


Figures = tuple[float | None, float | None]
"""Multiply-adds in billions and parameters in millions."""


def _video(
    source: str, name: str, variant: str, figures: Figures, *, side: int = 224, frames: int = 32, note: str = ""
) -> PublishedModel:
    return PublishedModel(
        source=source,
        name=name,
        model=parse_name(variant),
        clip=_clip(side, frames),
        num_classes=400,
        gmacs=figures[0],
        parameters_m=figures[1],
        note=note,
    )


def _with_temporal(row: PublishedModel, depth: int, tokens: bool = False) -> PublishedModel:
    """The row with so many temporal blocks, which see one vector per timestep or all of its tokens."""
    model = replace(row.model, temporal_depth=depth, temporal_input="tokens" if tokens else "pooled")
    return replace(row, model=model)


def _vivit() -> Iterator[PublishedModel]:
    yield _video(VIVIT, "B/16x2 model 1, joint", "vivit_b16x2_joint", (455.2, 88.9))
    yield _video(VIVIT, "B/16x2 model 2, 4 temporal blocks", "vivit_b16x2_fe", (284.4, 115.1))
    yield _video(VIVIT, "B/16x2 model 3", "vivit_b16x2_fsa", (372.3, 117.3))
    yield _video(VIVIT, "B/16x2 model 4", "vivit_b16x2_fdp", (277.1, 88.9))
    yield _with_temporal(_video(VIVIT, "B/16x2 model 2, mean over time", "vivit_b16x2_fe", (283.9, 86.7)), 0)
    for depth, parameters in ((1, 93.799312), (12, 171.765904)):
        name = f"B/16x2 model 2, {depth} temporal blocks"
        yield _with_temporal(_video(ARITHMETIC, name, "vivit_b16x2_fe", (None, parameters)), depth)
    yield _video(VIVIT, "L/16x2 joint", "vivit_l16x2_joint", (1446, None))
    yield _video(VIVIT, "L/16x2 joint, 288 pixels", "vivit_l16x2_joint", (2919, None), side=288)
    yield _video(VIVIT, "L/16x2 joint, 320 pixels", "vivit_l16x2_joint", (3992, None), side=320)
    large = _video(VIVIT, "L/16x2 FE, 24 temporal blocks", "vivit_l16x2_fe", (995.3, None))
    yield _with_temporal(large, 24)
    long = _video(VIVIT, "L/16x2 FE, 24 temporal blocks, 128 frames", "vivit_l16x2_fe", (3980.4, None), frames=128)
    yield _with_temporal(long, 24)
    yield _video(ARITHMETIC, "L/16x2 FE, 4 temporal blocks", "vivit_l16x2_fe", (988.2, 354.90344))
    yield _with_temporal(
        replace(large, source=ARITHMETIC, name="L/16x2 FE, 24 temporal blocks", gmacs=992.5, parameters_m=606.82792), 24
    )
    yield _video(VIVIT, "H/14x2 joint", "vivit_h14x2_joint", (3981, None), note="47.77 TFLOPs over 12 views")


def _hybrids() -> Iterator[PublishedModel]:
    """TokenLearner in front of a factorised encoder, which no paper has, and in B/16x2 models."""
    pooled = {
        (8, 3): (81.92, 115.111128),
        (8, 6): (148.62, 115.111128),
        (8, 9): (215.32, 115.111128),
        (8, 12): (282.01, 115.111128),
        (16, 6): (154.10, 115.111648),
        (16, 12): (282.03, 115.111648),
    }
    tokens = {
        (8, 3): (85.19, 115.197144),
        (8, 6): (151.89, 115.197144),
        (8, 9): (218.59, 115.197144),
        (8, 12): (285.28, 115.197144),
        (16, 6): (161.30, 115.295968),
        (16, 12): (289.23, 115.295968),
    }
    for place, figures in pooled.items():
        yield _video(ARITHMETIC, "B/16x2 FE {}at{}".format(*place), "vivit_b16x2_fe_tl{}at{}".format(*place), figures)
    for place, figures in tokens.items():
        name = "B/16x2 FE {}at{}, temporal encoder over tokens".format(*place)
        yield _with_temporal(
            _video(ARITHMETIC, name, "vivit_b16x2_fe_tl{}at{}".format(*place), figures), 4, tokens=True
        )
    for place, gmacs in {(8, 3): 124.2, (8, 6): 233.3, (16, 6): 239.2, (16, 9): 345.4}.items():
        name, variant = "B/16x2 joint {}at{}".format(*place), "vivit_b16x2_joint_tl{}at{}".format(*place)
        yield _video(ARITHMETIC, name, variant, (gmacs, None))


def _token_learner_video() -> Iterator[PublishedModel]:
    source = VIDEO_TOKEN_LEARNER
    yield _video(source, "ViViT-L/16", "vivit_l16x2_joint", (1446, 308))
    yield _video(source, "ViViT-L/16, 320 pixels", "vivit_l16x2_joint", (3992, 308), side=320)
    note = f"{NO_MATCH}654 M is no count of this model; others print 8316 GFLOPs"
    yield _video(source, "ViViT-H/14", "vivit_h14x2_joint", (3981, 654), note=note)
    yield _video(source, "16at12 + L/16", "16at12", (766, 308))
    yield _video(source, "8at18 + L/16", "8at18", (1105, 383), note="24 + 6 blocks")
    yield _video(source, "16at18 + L/14", "16at18 L/14", (1621, 447), note="24 + 11 blocks")
    note = "24 + 11 blocks; the outer 4 of 224 pixels fall off"
    yield _video(source, "16at18 + L/10", "16at18 L/10", (4076, 450), side=220, note=note)


def _token_learner_images() -> Iterator[PublishedModel]:
    """Version v1, as in the paper's experiments; the rows of arithmetic are of v1.1."""
    source = IMAGE_TOKEN_LEARNER
    yield _image(source, "ViT S/32", "vivit_s32x1_joint", 3.4, 384)
    yield _image(source, "ViT B/32", "vivit_b32x1_joint", 19.8, 384, note=f"{NO_MATCH}13.0 by arithmetic")
    yield _image(source, "ViT B/16", "vivit_b16x1_joint", 55.6, 384)
    yield _image(source, "8at6 S/32", "vivit_s32x1_joint_tl8at6_v1", 1.9, 384)
    yield _image(source, "8at6 B/16", "vivit_b16x1_joint_tl8at6_v1", 28.7, 384)
    yield _image(source, "8at11 S/32, 22 blocks", "vivit_s32x1_joint_tl8at11+10_v1", 3.3, 384)
    yield _image(source, "8at10 B/32, 20 blocks", "vivit_b32x1_joint_tl8at10+8_v1", 11.5, 384)
    yield _image(source, "8at10 B/16, 21 blocks", "vivit_b16x1_joint_tl8at10+9_v1", 47.1, 384)
    yield _image(source, "16at10 B/16, 21 blocks", "vivit_b16x1_joint_tl16at10+9_v1", 47.7, 384)
    yield _image(source, "ViT L/16", "vivit_l16x1_joint", 363.1, 512)
    note = f"{NO_MATCH}183.6 by arithmetic"
    yield _image(source, "16at12 L/16", "vivit_l16x1_joint_tl16at12_v1", 178.1, 512, note=note)
    yield _image(source, "16at12 L/16 + 11", "vivit_l16x1_joint_tl16at12+11_v1", 186.8, 512)
    yield _image(source, "8at18 L/16 + 6", "vivit_l16x1_joint_tl8at18+6_v1", 274.2, 512)
    note = "the outer 8 of 512 pixels fall off"
    yield _image(source, "16at18 L/14 + 11", "vivit_l14x1_joint_tl16at18+11_v1", 361.6, 504, note=note)
    for after_block, gmacs in {0: 0.80, 3: 4.97, 6: 9.13, 9: 13.30}.items():
        name, variant = f"8at{after_block} B/16, 224 pixels", f"vivit_b16x1_joint_tl8at{after_block}"
        yield _image(ARITHMETIC, name, variant, gmacs, 224)


def _image(source: str, name: str, variant: str, gmacs: float, side: int, note: str = "") -> PublishedModel:
    row = _video(source, name, variant, (gmacs, None), side=side, frames=1, note=note)
    return replace(row, num_classes=1000)


def _t2t() -> Iterator[PublishedModel]:
    performer = {
        7: (1.1, 4.3),
        10: (1.5, 5.9),
        12: (1.8, 6.9),
        14: (4.8, 21.5),
        19: (8.5, 39.2),
        24: (13.8, 64.1),
    }
    for size, figures in performer.items():
        yield _t2t_row(f"t2t_vit_{size}", f"T2T-ViT-{size}", figures)
    for size, figures in {14: (6.1, 21.5), 19: (9.8, 39.2), 24: (15.0, 64.1)}.items():
        yield _t2t_row(f"t2t_vit_t_{size}", f"T2T-ViT_t-{size}", figures)
    note = f"{NO_MATCH}16.37 by arithmetic"
    row = _t2t_row("t2t_vit_14", "T2T-ViT-14, 384 pixels", (17.1, 21.69147))
    yield replace(row, clip=_clip(384, 1), note=note)


def _t2t_row(variant: str, name: str, figures: Figures) -> PublishedModel:
    return PublishedModel(
        source=T2T,
        name=name,
        model=parse_name(variant),
        clip=_clip(224, 1),
        num_classes=1000,
        gmacs=figures[0],
        parameters_m=figures[1],
    )


def _mini_vit() -> Iterator[PublishedModel]:
    rows = {"mini-ViT": (4, 0, 0.0184), "mini-ViT, 8 blocks": (8, 0, 0.0359)}
    rows |= {"mini-ViT 4at3": (4, 4, 0.0147), "mini-ViT 8at3": (4, 8, 0.0153)}
    for name, (depth, num_tokens, gmacs) in rows.items():
        learner = TokenLearnerConfig(num_tokens=num_tokens, after_block=3, version="v1", pooling="mean")
        yield PublishedModel(
            source=MINI_VIT,
            name=name,
            model=ModelConfig(architecture="mini_vit", depth=depth, token_learner=learner),
            clip=_clip(48, 1),
            num_classes=10,
            gmacs=gmacs,
            parameters_m=None,
            note=_NO_ATTENTION,
        )


def _pytorchvideo() -> Iterator[PublishedModel]:
    """The zoo counts at its test sizes."""
    counts_norms = "the zoo also counts batch norms, at about 2.5 per value"
    rows = {
        "x3d_xs": (4, 182, 0.91, 3.79),
        "x3d_s": (13, 182, 2.96, 3.79),
        "x3d_m": (16, 256, 6.72, 3.79),
        "slow_r50": (8, 256, 54.52, 32.45),
        "slowfast_r50": (32, 256, 65.71, 34.57),
        "r2plus1d_r50": (16, 256, 76.45, 28.11),
        "mvit_b_16x4": (16, 224, 70.8, 36.61),
        "mvit_b_32x3": (32, 224, 170.37, 36.61),
    }
    for name, (frames, side, gmacs, parameters_m) in rows.items():
        yield PublishedModel(
            source=PYTORCHVIDEO,
            name=f"{name}, {side} pixels",
            model=parse_name(name),
            clip=_clip(side, frames),
            num_classes=400,
            gmacs=gmacs,
            parameters_m=parameters_m,
            note=counts_norms if name.startswith(("x3d", "r2plus1d")) else "",
        )


def _clip(side: int, frames: int) -> ClipConfig:
    return ClipConfig(num_frames=frames, frame_size=(side, side), short_side=max(256, side))


TABLES: dict[str, Callable[[], Iterator[PublishedModel]]] = {
    "vivit": _vivit,
    "vivit_token_learner": _hybrids,
    "token_learner_video": _token_learner_video,
    "token_learner_image": _token_learner_images,
    "t2t_vit": _t2t,
    "mini_vit": _mini_vit,
    "pytorchvideo": _pytorchvideo,
}


def published_models(table: str | None = None) -> list[PublishedModel]:
    """The rows of one of `TABLES`, or every row, paper by paper; names are unique within a source."""
    tables = [TABLES[table]] if table else TABLES.values()
    return list(chain.from_iterable(rows() for rows in tables))
