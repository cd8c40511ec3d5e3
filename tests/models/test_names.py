"""Names of models of every family: published sizes, notations, errors."""

import inspect

import pytest
import torch
import yaml

import vidtl
from tests.environment import REPOSITORY
from tests.refusals import refused
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.config.model import ARCHITECTURES, model_arguments, resolve_model
from vidtl.models import build_model, create_model, list_models
from vidtl.models.complexity import count_parameters
from vidtl.models.factory import MODELS, PAPER_MODELS, parse_name


def create_on_meta(name, *arguments, **settings):
    with torch.device("meta"):
        return create_model(name, *arguments, **settings)


TOKENS = {"temporal_input": "tokens", "pooling": "mean"}
IMAGENET = {"num_classes": 1000}


@pytest.mark.parametrize(
    ("name", "settings", "count"),
    [
        ("B/16x2", {}, 88_954_000),
        ("ViViT-B/16x2 FE", {}, 115_062_928),
        ("vivit_b16x2_fsa", {}, 117_319_312),
        ("vivit_b16x2_fdp", {}, 88_952_464),
        ("L/16x2 fe", {}, 354_903_440),
        ("H/14x2", {}, 636_945_040),
        ("16at12", {}, 307_662_992),
        ("TokenLearner 8at18", {}, 383_161_424),
        ("16at18 + L/14", {}, 446_835_856),
        ("16at18 L/10", {"frame_size": (220, 220)}, 449_981_584),
        ("vivit_b16x2_fe_tl8at3", {}, 115_111_128),
        ("vivit_b16x2_fe_tl16at6", {}, 115_111_648),
        ("vivit_b16x2_fe", {"temporal_depth": 0}, 86_696_080),
        ("vivit_b16x2_fe", {"temporal_depth": 1}, 93_799_312),
        ("vivit_b16x2_fe", {"temporal_depth": 12}, 171_765_904),
        ("vivit_b16x2_fe_tl8at3", TOKENS, 115_197_144),
        ("vivit_b16x2_fe_tl16at6", TOKENS, 115_295_968),
        ("mini_vit", IMAGENET, 1_483_560),
        ("x3d_s", IMAGENET, 5_023_674),
        ("mvit_b_32x3", IMAGENET, 37_072_840),
        # All and those without the frozen ones: position table, features of the Performer.
        ("t2t_vit_7", IMAGENET, (4_310_222, 4_255_694)),
        ("t2t_vit_10", IMAGENET, (5_889_230, 5_834_702)),
        ("t2t_vit_12", IMAGENET, (6_941_902, 6_887_374)),
        ("t2t_vit_14", IMAGENET, (21_545_550, 21_465_806)),
        ("t2t_vit_19", IMAGENET, (39_177_422, 39_085_070)),
        ("t2t_vit_24", IMAGENET, (64_105_934, 64_000_974)),
        ("t2t_vit_t_14", IMAGENET, (21_541_070, 21_465_422)),
        ("t2t_vit_t_19", IMAGENET, (39_172_942, 39_084_686)),
        ("t2t_vit_t_24", IMAGENET, (64_101_454, 64_000_590)),
    ],
)
def test_published_sizes(name, settings, count):
    model = create_on_meta(name, **settings)
    counts = (count_parameters(model), count_parameters(model, trainable_only=True))
    assert counts == (count if isinstance(count, tuple) else (count, count))


def test_clips_are_the_published_ones_settings_may_be_overridden_and_mistakes_are_named():
    clips = (create_on_meta(name).clip_config for name in ("mini_vit", "x3d_s", "mvit_b_32x3"))
    sizes = [(1, (48, 48)), (13, (160, 160)), (32, (224, 224))]
    assert [(clip.num_frames, clip.frame_size) for clip in clips] == sizes
    model = create_on_meta("t2t_vit_7", num_classes=10, frame_size=(64, 64), width=64, depth=2)
    assert (model.model_config.width, model.clip_config.frame_size, model.num_classes) == (64, (64, 64), 10)
    with refused("'dept'", "'depth'"):
        create_on_meta("mini_vit", dept=2)
    with refused("clip.frame_size", [224, 224], "10 pixels", 220):
        create_on_meta("16at18 L/10")


def test_equal_names_and_notations():
    assert parse_name("B/16x2") == parse_name("vivit_b16x2_joint") == parse_name("ViViT-B/16x2 joint")
    assert parse_name("16at18") == parse_name("TokenLearner 16at18 + L/14")
    config = parse_name("vivit_s32x4_fsa_tl4at5+2_v1_fuser")
    assert (config.size, config.depth, config.tubelet) == ("S", 14, (4, 32, 32))
    assert config.form == "factorised_self_attention"
    assert config.token_learner == TokenLearnerConfig(num_tokens=4, after_block=5, version="v1", fuser=True)


def test_the_papers_models_have_the_papers_token_learner():
    assert {parse_name(name).token_learner.version for name in PAPER_MODELS} == {"v1"}
    config = REPOSITORY / "configs" / "kinetics400_vivit_l_joint_tl16at12.yaml"
    model = yaml.safe_load(config.read_text())["model"]
    stage = TokenLearnerConfig(**model.pop("token_learner"))
    recipe = ModelConfig(**{**model, "tubelet": tuple(model["tubelet"])}, token_learner=stage)
    assert resolve_model(recipe) == resolve_model(parse_name("16at12"))
    assert [resolve_model(parse_name(name)).depth for name in PAPER_MODELS] == [24, 30, 35, 35, 35]


def test_every_listed_name_builds():
    names = list_models()
    assert len(names) == len(set(names)) > 100
    for name in names:
        parse_name(name)
        if name.startswith(("vivit_ti", "t2t_vit_7", "t2t_vit_t_14", "x3d_xs")):
            create_on_meta(name)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_setting_of_a_family_is_an_argument_of_its_model(architecture):
    known = set(inspect.signature(MODELS[architecture]).parameters) - {"num_classes", "name"}
    for size in ARCHITECTURES[architecture].sizes:
        config = resolve_model(ModelConfig(architecture=architecture, size=size))
        assert resolve_model(config) == config
        given = set(model_arguments(config, ClipConfig()))
        assert given <= known
        unset = {"pooling_width", "pooled_norm_eps", "background"}  # those of the model, and of the clip
        assert known - given <= {"stochastic_depth", *unset}  # of pytorchvideo, MViT alone has it


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("vivit_b16x2_fee", "vivit_b16x2_fe"),
        ("vivit_b16x2_fe_tl8at", "vivit_b16x2_fe_tl8at6"),
        ("8at19", "8at18"),
        ("vivit_b16x2_fe_tl0at3", "vivit_b16x2_fe_tl8at3"),
        ("t2t_vit_15", "t2t_vit_1"),
        ("x3d_l", "x3d_"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name, nearest):
    with refused(repr(name), f"'{nearest}"):
        create_model(name)


def test_models_from_numbers_equal_those_from_a_configuration():
    sizes, clip = {"width": 24, "depth": 2, "num_heads": 3}, {"num_frames": 4, "frame_size": (32, 32)}
    model = vidtl.ViViT(**sizes, **clip, num_classes=5)
    config = ModelConfig(**sizes, token_learner=TokenLearnerConfig(num_tokens=0))
    models = (model, build_model(config, ClipConfig(**clip), 5))
    shapes = [{name: tensor.shape for name, tensor in each.state_dict().items()} for each in models]
    assert shapes[0] == shapes[1]
    assert model(torch.randn(2, 4, 3, 32, 32)).shape == (2, 5)
