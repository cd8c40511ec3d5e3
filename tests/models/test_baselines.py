"""pytorchvideo's networks in this project's clothes: the zoo's counts, names and outputs, and clips that do not fit."""

import subprocess
import sys

import pytest
import torch

from tests.refusals import refused
from vidtl.config import ClipConfig, ModelConfig
from vidtl.config.model import ARCHITECTURES
from vidtl.models import build_model
from vidtl.models.baselines import PytorchVideoModel
from vidtl.models.complexity import count_multiply_adds, count_parameters

# Frames and pixels of the published costs, multiply-adds in billions, parameters in millions; 400 classes.
PUBLISHED = {
    "x3d_xs": (4, 160, 0.60, 3.79),
    "x3d_s": (13, 160, 1.96, 3.79),
    "x3d_m": (16, 224, 4.73, 3.79),
    "slow_r50": (8, 256, 54.52, 32.45),
    "slowfast_r50": (32, 256, 65.71, 34.57),
    "r2plus1d_r50": (16, 256, None, 28.11),
    "mvit_b_16x4": (16, 224, 70.80, 36.61),
}


def clip_of(frames: int, side: int, other: int | None = None) -> ClipConfig:
    size = (side, other or side)
    return ClipConfig(num_frames=frames, frame_size=size, short_side=max(size))


def baseline(name: str, clip: ClipConfig, classes: int = 400, **settings: float) -> PytorchVideoModel:
    config = ModelConfig(architecture="pytorchvideo", size=name, **settings)  # type: ignore[arg-type]
    model = build_model(config, clip, classes)
    assert isinstance(model, PytorchVideoModel)
    return model


@pytest.mark.parametrize("name", PUBLISHED)
def test_costs_are_the_published_ones(name: str) -> None:
    frames, side, gmacs, parameters_m = PUBLISHED[name]
    with torch.device("meta"):
        model = baseline(name, clip_of(frames, side))
    assert round(count_parameters(model) / 1e6, 2) == parameters_m
    if gmacs is not None:
        assert count_multiply_adds(model, clip_of(frames, side)) / 1e9 == pytest.approx(gmacs, rel=1e-2)


@pytest.mark.parametrize(
    ("name", "hub_name"),
    [
        ("x3d_m", "x3d_m"),
        ("slow_r50", "slow_r50"),
        ("slowfast_r50", "slowfast_r50"),
        ("r2plus1d_r50", "r2plus1d_r50"),
        ("mvit_b_16x4", "mvit_base_16x4"),
    ],
)
def test_weights_have_the_zoos_names_and_shapes(name: str, hub_name: str) -> None:
    import pytorchvideo.models.hub

    frames, side, _, _ = PUBLISHED[name]
    with torch.device("meta"):
        model = baseline(name, clip_of(frames, side))
    with torch.device("cpu" if name.startswith("mvit") else "meta"):
        zoo = getattr(pytorchvideo.models.hub, hub_name)(pretrained=False)
    ours = {key: tuple(value.shape) for key, value in model.net.state_dict().items()}
    assert ours == {key: tuple(value.shape) for key, value in zoo.state_dict().items()}


def test_logits_are_the_zoos_before_its_softmax() -> None:
    from pytorchvideo.models.hub import x3d_xs

    torch.manual_seed(0)
    model = baseline("x3d_xs", clip_of(4, 160)).eval()
    zoo = x3d_xs(pretrained=False).eval()
    zoo.load_state_dict(model.net.state_dict())
    clips = torch.randn(1, 4, 3, 160, 160)
    with torch.no_grad():
        logits_BK = model(clips)
        expected = zoo(clips.transpose(1, 2))
    torch.testing.assert_close(logits_BK.softmax(dim=1), expected)
    assert (logits_BK < 0).any()


def test_the_slow_pathway_takes_one_frame_of_four() -> None:
    with torch.device("meta"):
        model = baseline("slowfast_r50", clip_of(32, 32))
    seen: list[list[float]] = []
    model.net.forward = lambda pathways: seen.extend(p[0, 0, :, 0, 0].tolist() for p in pathways)  # type: ignore[method-assign]
    frames = torch.arange(32.0).reshape(1, 32, 1, 1, 1).expand(1, 32, 3, 32, 32)
    model(frames)
    assert seen == [[0, 4, 8, 13, 17, 22, 26, 31], list(range(32))]


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("x3d_xs", clip_of(4, 32, 48)),
        ("slow_r50", clip_of(2, 32, 50)),
        ("slowfast_r50", clip_of(8, 48, 32)),
        ("r2plus1d_r50", clip_of(3, 32, 48)),
        ("mvit_b_16x4", clip_of(16, 32, 64)),
    ],
)
def test_every_network_takes_small_clips(name: str, clip: ClipConfig) -> None:
    torch.manual_seed(0)
    model = baseline(name, clip, classes=5).eval()
    with torch.no_grad():
        logits_BK = model(torch.randn(2, clip.num_frames, 3, *clip.frame_size))
    assert logits_BK.shape == (2, 5)
    assert not torch.allclose(logits_BK[0], logits_BK[1], rtol=0, atol=0)


def test_training_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    model = baseline("x3d_xs", clip_of(4, 64), classes=5).train()
    model(torch.randn(2, 4, 3, 64, 64)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_only_mvits_positions_are_exempt_from_decay() -> None:
    with torch.device("meta"):
        mvit = baseline("mvit_b_16x4", clip_of(16, 64), stochastic_depth=0.2)
        slow = baseline("slow_r50", clip_of(4, 64))
    exempt = {name.rpartition(".")[2] for name in mvit.no_weight_decay()}
    assert exempt == {"cls_token", "pos_embed_spatial", "pos_embed_temporal", "pos_embed_class"}
    assert slow.no_weight_decay() == set()


SIZES = ARCHITECTURES["pytorchvideo"]
FIXED = {name: SIZES.clip_of(name)["num_frames"] for name in SIZES.sizes if name.startswith(("x3d", "mvit"))}


@pytest.mark.parametrize(
    ("name", "clip", "parts"),
    [
        *((name, clip_of(frames + 1, 64), ("clip.num_frames", frames + 1, frames)) for name, frames in FIXED.items()),
        ("slowfast_r50", clip_of(30, 64), ("clip.num_frames", 30, "multiples of 4")),
        ("slow_r50", clip_of(8, 30), ("clip.frame_size", [30, 30], "32 pixels or more")),
        ("mvit_b_16x4", clip_of(16, 100), ("clip.frame_size", [100, 100], "multiples of 32")),
    ],
)
def test_clips_that_do_not_fit_are_refused(name: str, clip: ClipConfig, parts: tuple[object, ...]) -> None:
    with torch.device("meta"), refused(*parts, name):
        baseline(name, clip)


def test_pytorchvideo_is_imported_only_when_asked_for_and_without_warnings() -> None:
    code = """
import sys, warnings, torch
from vidtl.config import ClipConfig, ModelConfig
from vidtl.models import build_model
assert not any(name.split(".")[0] == "pytorchvideo" for name in sys.modules)
clip = ClipConfig(num_frames=4, frame_size=(32, 32), short_side=32)
with torch.device("meta"):
    build_model(ModelConfig(architecture="pytorchvideo", size="x3d_xs"), clip, 3)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
