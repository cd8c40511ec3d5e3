"""Published weights in models of another form, and the settings that they decide."""

import logging
import re
from itertools import product

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.models.published import assert_close, write_changed
from tests.refusals import refused
from vidtl import VideoModel
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model, create_model, save_model_directory
from vidtl.models.weights.pretrained import load_pretrained
from vidtl.models.weights.published import build_published, read_published, settings_of_weights

FORMS = ("joint", "factorised_encoder", "factorised_self_attention", "factorised_dot_product")
VIDEO = ("videomae_classification", "videomae_pretraining", "videoprism_vision", "videoprism_classification")
IMAGE = ("timm_augreg", "timm_clip_openai_quickgelu", "timm_dinov2_reg", "timm_siglip", "hf_vit", "hf_dinov2")


@pytest.fixture
def foundation(golden):
    return golden / "foundation"


def fitted(published, **given):
    """Build a model of 3 classes as a run would, with `given` settings of `model` and `clip`, and load the weights."""
    of_clip = ("num_frames", "frame_size", "mean", "stride")
    keys = {f"model.{key}": value for key, value in given.items() if key not in of_clip}
    keys |= {f"clip.{key}": value for key, value in given.items() if f"model.{key}" not in keys}
    settings = settings_of_weights(published, keys) | keys
    model, clip = (
        {key.partition(".")[2]: value for key, value in settings.items() if key.startswith(f"{section}.")}
        for section in ("model", "clip")
    )
    learner = {key.partition(".")[2]: model.pop(key) for key in list(model) if "." in key}
    config = ModelConfig(**model, token_learner=TokenLearnerConfig(**learner))
    built = build_model(config, ClipConfig(**{"num_frames": 4, **clip}), 3)
    return built, load_pretrained(built, published, new_head=True)


@pytest.mark.parametrize("name", [*VIDEO, *IMAGE, "timesformer"])
def test_weights_start_any_form_with_token_learner_after_any_block(foundation, name):
    """What has weights loads them all, what is fresh is named, and a step gives every part a gradient."""
    published = read_published(foundation / name)
    forms = FORMS if name != "timesformer" else FORMS[2:3]
    for form, after_block in product(forms, (None, 0, 1, 3)):
        stage = {"token_learner.num_tokens": 2, "token_learner.after_block": after_block}
        model, report = fitted(published, form=form, **(stage if after_block is not None else {}))
        assert report.unexpected == report.mismatched == ()
        allowed = ["head.", *(["encoder.token_learners."] if after_block is not None else [])]
        allowed += ["norm_time.", "scale_time."] if form == "factorised_self_attention" else []
        allowed += ["temporal_encoder."] if name.startswith("videomae") else []
        assert [each for each in report.missing if not any(part in each for part in allowed)] == []
        blocks = [each for each in published.weights.state if ".mlp.fc1." in each and each.startswith("encoder")]
        assert set(blocks) <= set(report.loaded)
        torch.nn.init.normal_(model.head.weight)
        model(torch.randn(2, *model.clip_shape)).square().sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


@torch.no_grad()
@pytest.mark.parametrize("name", IMAGE)
@pytest.mark.parametrize("tubelet", [1, 2])
def test_a_clip_of_equal_frames_has_the_features_of_the_image(foundation, name, tubelet):
    published = read_published(foundation / name)
    patch = published.model["tubelet"][1]
    model, _ = fitted(published, tubelet=(tubelet, patch, patch), num_frames=6)
    with np.load(foundation / name / "io.npz") as archive:
        images, pooled = (torch.from_numpy(archive[key]) for key in ("pixel_values", "pooled"))
    assert_close(model.eval().forward_features(images.unsqueeze(1).expand(-1, 6, -1, -1, -1)), pooled)


@torch.no_grad()
def test_patches_of_another_size_see_the_same_picture(foundation):
    """An enlarged picture, cut into patches that are larger by the same factor, has the same tokens."""
    published = read_published(foundation / "timm_augreg")
    small, _ = build_published(published)
    patch = published.model["tubelet"][1]
    size = (2 * small.clip_shape[2], 2 * small.clip_shape[3])
    large, report = fitted(published, tubelet=(1, 2 * patch, 2 * patch), num_frames=1, frame_size=size)
    assert report.resized == ()
    picture = torch.rand(1, 1, 3, *small.clip_shape[2:])
    patches = picture.unfold(3, patch, patch).unfold(4, patch, patch).reshape(-1, 1, patch, patch)
    enlarged = torch.nn.functional.interpolate(patches, scale_factor=2, mode="bicubic", antialias=True)
    grid = [side // patch for side in small.clip_shape[2:]]
    whole = enlarged.reshape(3, *grid, 2 * patch, 2 * patch).transpose(2, 3).reshape(1, 1, 3, *size)
    torch.testing.assert_close(large.tokenize(whole), small.tokenize(picture), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "given", "parts"),
    [
        ("timm_siglip", {"activation": "quick_gelu"}, ("model.activation", "'quick_gelu'", "'gelu'")),
        ("videomae_classification", {"norm_eps": 1e-3}, ("model.norm_eps", 1e-3, 1e-12)),
        ("videomae_classification", {"positions": "learned"}, ("model.positions", "'learned'", "'sincos_1d'")),
        ("timm_deit3", {"layer_scale": 0.0}, ("model.layer_scale", 0.0)),
        ("timm_clip_laion", {"input_norm": False}, ("model.input_norm", False)),
        ("timm_dinov2_reg", {"num_registers": 0}, ("model.num_registers", 0)),
        ("videoprism_vision", {"attention_softcap": 0.0}, ("model.attention_softcap", 0.0, 50.0)),
        ("videomae_classification", {"size": "S"}, ("model.width", 384, 48)),
        ("videomae_classification", {"tubelet": (4, 8, 8)}, ("model.tubelet", 4, 2)),
        ("timesformer", {"form": "joint"}, ("model.form", "'joint'", "factorised_self_attention")),
    ],
)
def test_settings_that_contradict_weights(foundation, name, given, parts):
    with refused(*parts, name):
        fitted(read_published(foundation / name), **given)


def test_a_classifier_decides_the_read_out(foundation):
    published = read_published(foundation / "videomae_classification")
    model, _ = fitted(published, pooling="mean")  # a fresh classifier does not
    model.class_names = published.weights.class_names[:3]
    with refused("model.pooling", "'mean'", "'mean_norm'"):
        load_pretrained(model, published)


@torch.no_grad()
def test_a_class_token_that_is_not_pooled_stays_as_a_register(foundation):
    """All tokens are those of the published model, which a probe on top of a frozen one needs."""
    for name in ("timm_dinov2_reg", "timesformer"):
        published = read_published(foundation / name)
        whole, _ = build_published(published)
        model, report = fitted(published, pooling="attention", num_frames=whole.clip_shape[0])
        assert model.encoder.num_prefix == whole.encoder.num_prefix
        assert all(each.startswith("head.") for each in report.unused)
        clips = torch.randn(1, *model.clip_shape)
        torch.testing.assert_close(model.eval().forward_tokens(clips), whole.eval().forward_tokens(clips))
    model, report = fitted(published, pooling="mean", num_registers=0)
    assert "encoder.cls" in report.unused


def test_other_pixels_than_those_of_the_weights_are_named(foundation, caplog):
    published = read_published(foundation / "videomae_classification")
    given = {"clip.mean": (0.5, 0.5, 0.5), "clip.stride": 4, "clip.frame_size": (64, 64), "training.seed": 1}
    settings = settings_of_weights(published, given)
    with caplog.at_level(logging.WARNING):
        fitted(published, mean=(0.5, 0.5, 0.5), stride=4, frame_size=(64, 64))
    told = {record.args[0]: record.args[1] for record in caplog.records if isinstance(record.args, tuple)}
    assert told == {"mean": (0.5, 0.5, 0.5), "frame_size": (64, 64)}
    assert settings["clip.std"] == published.clip["std"]
    assert settings["clip.short_side"] == 64
    assert not settings.keys() & given.keys()


def test_models_by_name_start_from_weights(foundation, tmp_path):
    sizes = {"width": 48, "depth": 3, "num_heads": 4, "mlp_width": 120}
    name, source = "vivit_ti8x2_joint_tl4at1", str(foundation / "videomae_classification")
    model = create_model(name, 5, pretrained=source, **sizes)
    assert (model.model_config.pooling, model.model_config.positions) == ("mean_norm", "sincos_1d")
    assert model.clip_config.mean == (0.485, 0.456, 0.406)
    assert len(model.class_names) == 5  # of the weights, whose classifier is loaded
    assert model.head.weight.abs().max() > 0
    assert create_model(name, 7, pretrained=source, **sizes).class_names == ()
    with refused("model.width", 192, 48):
        create_model(name, 5, pretrained=source)
    save_model_directory(model, tmp_path)
    clips = torch.randn(1, *model.clip_shape)
    with torch.no_grad():
        assert torch.equal(VideoModel.from_pretrained(tmp_path)(clips), model.eval()(clips))


@pytest.mark.parametrize("wrapped", ["module.NAME", "_orig_mod.NAME", "module._orig_mod.NAME", "module.BLOCKS"])
def test_names_of_wrapped_models_are_read(foundation, tmp_path, wrapped):
    source = foundation / "timm_augreg"
    state = {
        wrapped.replace("NAME", name).replace("BLOCKS", re.sub(r"(blocks\.\d+)", r"\1._orig_mod", name)): tensor
        for name, tensor in load_file(source / "model.safetensors").items()
    }
    write_changed(tmp_path, source, state)
    assert read_published(tmp_path).weights.state.keys() == read_published(source).weights.state.keys()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_any_precision_are_read_in_float32(foundation, tmp_path, dtype):
    source = foundation / "timesformer"  # its reader multiplies matrices
    state = {name: tensor.to(dtype) for name, tensor in load_file(source / "model.safetensors").items()}
    found = []
    for folder, stored in (("given", state), ("float32", {name: tensor.float() for name, tensor in state.items()})):
        found.append(read_published(write_changed(tmp_path / folder, source, stored)).weights.state)
    # A product depends in its last bits on where a file's tensors lie in memory, on some CPUs.
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "tensor", "shape"),
    [
        ("hf_siglip_vision", "vision_model.head.attention.in_proj_bias", None),
        ("timesformer", "timesformer.encoder.layer.0.temporal_dense.bias", None),
        ("timesformer", "timesformer.embeddings.time_embeddings", [1, 4, 40]),
        ("timm_augreg", "blocks.0.mlp.fc2.weight", [7]),
        ("videoprism_classification", "head.per_dim_scale", [7]),
    ],
)
def test_tensors_that_are_lost_or_of_another_shape(foundation, tmp_path, name, tensor, shape):
    state = load_file(foundation / name / "model.safetensors")
    del state[tensor]
    write_changed(tmp_path, foundation / name, state | ({tensor: torch.ones(shape)} if shape else {}))
    with refused(tmp_path, "allowed: whole weights and settings"):
        read_published(tmp_path)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [({"id2label": {"0": "a", "1": "b"}}, ("2 class names", "5")), ({"model_type": None}, ("no model_type",))],
)
def test_settings_that_the_weights_contradict(foundation, tmp_path, changes, parts):
    write_changed(tmp_path, foundation / "videomae_classification", **changes)
    with refused(tmp_path, *parts):
        VideoModel.from_pretrained(tmp_path)


def test_weights_without_a_classifier_get_a_fresh_one(foundation):
    model = VideoModel.from_pretrained(foundation / "videomae_pretraining", num_classes=6)
    assert not model.training
    assert not model(torch.randn(1, *model.clip_shape)).any()
    clip = ClipConfig(num_frames=2, frame_size=(48, 48))
    longer = VideoModel.from_pretrained(foundation / "timm_mae", clip=clip, num_classes=2)
    assert longer(torch.randn(1, 2, 3, 48, 48)).shape == (1, 2)
