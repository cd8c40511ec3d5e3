"""Networks of pytorchvideo: costs, names and outputs of the model zoo, and clips that do not fit."""

import pytest
import torch

from tests.refusals import refused
from vidtl.config import ClipConfig, ModelConfig
from vidtl.config.model import ARCHITECTURES
from vidtl.models import build_model
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
IN_ZOO = {name: name for name in ("x3d_m", "slow_r50", "slowfast_r50", "r2plus1d_r50")} | {
    "mvit_b_16x4": "mvit_base_16x4"
}
SMALL_CLIPS = {
    "x3d_xs": (4, 32, 48),
    "slow_r50": (2, 32, 50),
    "slowfast_r50": (8, 48, 32),
    "r2plus1d_r50": (3, 32, 48),
    "mvit_b_16x4": (16, 32, 64),
}


def baseline(name, frames, height, width=None, num_classes=400, **more):
    size = (height, width or height)
    clip = ClipConfig(num_frames=frames, frame_size=size, short_side=max(size))
    return build_model(ModelConfig(architecture="pytorchvideo", size=name, **more), clip, num_classes)


@pytest.mark.parametrize("name", PUBLISHED)
def test_costs_names_and_shapes_are_the_published_ones(name):
    import pytorchvideo.models.hub

    frames, side, gmacs, parameters_m = PUBLISHED[name]
    with torch.device("meta"):
        model = baseline(name, frames, side)
    assert round(count_parameters(model) / 1e6, 2) == parameters_m
    if gmacs is not None:
        assert count_multiply_adds(model, model.clip_config) / 1e9 == pytest.approx(gmacs, rel=1e-2)
    if name in IN_ZOO:
        with torch.device("cpu" if name.startswith("mvit") else "meta"):
            zoo = getattr(pytorchvideo.models.hub, IN_ZOO[name])(pretrained=False)
        shapes = [{key: value.shape for key, value in net.state_dict().items()} for net in (model.net, zoo)]
        assert shapes[0] == shapes[1]


def test_logits_are_those_of_the_zoo_before_its_softmax():
    from pytorchvideo.models.hub import x3d_xs

    torch.manual_seed(0)
    model = baseline("x3d_xs", 4, 160).eval()
    zoo = x3d_xs(pretrained=False).eval()
    zoo.load_state_dict(model.net.state_dict())
    clips = torch.randn(1, 4, 3, 160, 160)
    with torch.no_grad():
        logits_BK = model(clips)
        torch.testing.assert_close(logits_BK.softmax(dim=1), zoo(clips.transpose(1, 2)))
    assert (logits_BK < 0).any()


def test_the_slow_pathway_takes_one_frame_of_four():
    with torch.device("meta"):
        model = baseline("slowfast_r50", 32, 32)
    seen: list[list[float]] = []
    model.net.forward = lambda pathways: seen.extend(p[0, 0, :, 0, 0].tolist() for p in pathways)
    model(torch.arange(32.0).reshape(1, 32, 1, 1, 1).expand(1, 32, 3, 32, 32))
    assert seen == [[0, 4, 8, 13, 17, 22, 26, 31], list(range(32))]


@pytest.mark.parametrize("name", SMALL_CLIPS)
def test_every_network_takes_small_clips(name):
    torch.manual_seed(0)
    model = baseline(name, *SMALL_CLIPS[name], num_classes=5).eval()
    with torch.no_grad():
        logits_BK = model(torch.randn(2, *model.clip_shape))
    assert logits_BK.shape == (2, 5)
    assert not torch.equal(logits_BK[0], logits_BK[1])


def test_only_positions_of_mvit_are_exempt_from_decay():
    with torch.device("meta"):
        mvit, slow = baseline("mvit_b_16x4", 16, 64, stochastic_depth=0.2), baseline("slow_r50", 4, 64)
    exempt = {name.rpartition(".")[2] for name in mvit.no_weight_decay()}
    assert exempt == {"cls_token", "pos_embed_spatial", "pos_embed_temporal", "pos_embed_class"}
    assert slow.no_weight_decay() == set()


SIZES = ARCHITECTURES["pytorchvideo"]
FIXED = {name: SIZES.clip_of(name)["num_frames"] for name in SIZES.sizes if name.startswith(("x3d", "mvit"))}


@pytest.mark.parametrize(
    ("name", "frames", "side", "parts"),
    [
        *((name, frames + 1, 64, ("clip.num_frames", frames + 1, frames)) for name, frames in FIXED.items()),
        ("slowfast_r50", 30, 64, ("clip.num_frames", 30, "multiples of 4")),
        ("slow_r50", 8, 30, ("clip.frame_size", [30, 30], "32 pixels or more")),
        ("mvit_b_16x4", 16, 100, ("clip.frame_size", [100, 100], "multiples of 32")),
    ],
)
def test_clips_that_do_not_fit_are_refused(name, frames, side, parts):
    with torch.device("meta"), refused(*parts, name):
        baseline(name, frames, side)
