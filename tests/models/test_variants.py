"""Names build the papers' models: the published sizes, to the last parameter."""

import pytest
import torch
import yaml
from vidtl.models.variants import PAPER_MODELS, parse_variant, resolve_sizes

from tests.environment import REPOSITORY
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.errors import UserError
from vidtl.models import build_model, create_model, list_models


def num_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def create_on_meta(name, **settings):
    with torch.device("meta"):
        return create_model(name, **settings)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("B/16x2", 88_954_000),
        ("ViViT-B/16x2 FE", 115_062_928),
        ("vivit_b16x2_fsa", 117_319_312),
        ("vivit_b16x2_fdp", 88_952_464),
        ("ViViT-L/16x2", 307_508_624),
        ("L/16x2 fe", 354_903_440),
        ("H/14x2", 636_945_040),
        ("16at12", 307_662_992),
        ("TokenLearner 8at18", 383_161_424),
        ("16at18 + L/14", 446_835_856),
        ("vivit_b16x2_fe_tl8at3", 115_111_128),
        ("vivit_b16x2_fe_tl8at12", 115_111_128),
        ("vivit_b16x2_fe_tl16at6", 115_111_648),
    ],
)
def test_published_sizes(name, count):
    assert num_parameters(create_on_meta(name)) == count


def test_the_largest_published_model_takes_frames_that_its_patches_divide():
    with pytest.raises(
        UserError, match=r"clip\.frame_size is \[224, 224\]; .* multiple of the tubelet's 10 pixels, such as 220"
    ):
        create_on_meta("16at18 L/10")
    assert num_parameters(create_on_meta("16at18 L/10", frame_size=(220, 220))) == 449_981_584


@pytest.mark.parametrize(("temporal_depth", "count"), [(0, 86_696_080), (1, 93_799_312), (12, 171_765_904)])
def test_sizes_of_the_temporal_ablation(temporal_depth, count):
    config = ModelConfig(temporal_depth=temporal_depth, pooling="cls", token_learner=TokenLearnerConfig(num_tokens=0))
    assert num_parameters(build(config)) == count


@pytest.mark.parametrize(
    ("num_tokens", "after_block", "count"), [(8, 3, 115_197_144), (8, 12, 115_197_144), (16, 6, 115_295_968)]
)
def test_sizes_with_every_learned_token_in_the_temporal_encoder(num_tokens, after_block, count):
    stage = TokenLearnerConfig(num_tokens=num_tokens, after_block=after_block)
    assert num_parameters(build(ModelConfig(temporal_input="tokens", token_learner=stage))) == count


def build(config):
    with torch.device("meta"):
        return build_model(config, ClipConfig(), 400)


def test_names_and_notations_mean_the_same():
    assert parse_variant("B/16x2") == parse_variant("vivit_b16x2_joint") == parse_variant("ViViT-B/16x2 joint")
    assert parse_variant("16at18") == parse_variant("TokenLearner 16at18 + L/14")
    config = parse_variant("vivit_s32x4_fsa_tl4at5+2_v1_fuser")
    assert (config.size, config.depth, config.tubelet) == ("S", 14, (4, 32, 32))
    assert config.form == "factorised_self_attention"
    assert config.token_learner == TokenLearnerConfig(num_tokens=4, after_block=5, version="v1", fuser=True)


def test_the_papers_models_have_the_papers_token_learner():
    assert {parse_variant(name).token_learner.version for name in PAPER_MODELS} == {"v1"}
    config = REPOSITORY / "configs" / "kinetics400_vivit_l_joint_tl16at12.yaml"
    vivit = yaml.safe_load(config.read_text())["model"]["vivit"]
    stage = TokenLearnerConfig(**vivit.pop("token_learner"))
    assert ModelConfig(**{**vivit, "tubelet": tuple(vivit["tubelet"])}, token_learner=stage) == parse_variant("16at12")


def test_extra_blocks_of_the_papers_models():
    depths = {name: resolve_sizes(parse_variant(name)).depth for name in PAPER_MODELS}
    assert depths == {"16at12": 24, "8at18": 30, "16at18": 35, "16at18 L/14": 35, "16at18 L/10": 35}


def test_every_listed_name_builds():
    names = list_models()
    assert len(names) == len(set(names)) > 100
    small = [name for name in names if name.startswith("vivit_ti")]
    for name in small:
        create_on_meta(name, num_frames=4)
    for name in set(names) - set(small):
        parse_variant(name)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("vivit_b16x2_fee", "did you mean 'vivit_b16x2_fe'?"),
        ("vivit_b16x2_fe_tl8at", "did you mean 'vivit_b16x2_fe_tl8at6'?"),
        ("8at19", "did you mean '8at18'?"),
        ("vivit_b16x2_fe_tl0at3", "did you mean 'vivit_b16x2_fe_tl8at3'?"),
    ],
)
def test_unknown_names_are_told_the_nearest(name, nearest):
    with pytest.raises(UserError) as error:
        create_model(name)
    assert str(error.value) == f"model is {name!r}; {nearest}"
