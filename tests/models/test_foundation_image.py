"""Published image models and TimeSformer: values of the original libraries, reproduced from their files."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.refusals import refused
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model
from vidtl.models.embedding import resize_patch
from vidtl.models.weights.families import find_reader
from vidtl.models.weights.load import load_weights

CLIPS = ("frame_size", "num_frames", "short_side")


def read(folder, **changes):
    """Read a directory as it was saved."""
    config, state = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    config |= {"preprocessor": {}, **changes}
    return find_reader(config, state)(config, state, str(folder))


def build(published, **clip):
    """Build the model as published, with all of its weights."""
    shape = {key: published.clip[key] for key in CLIPS if key in published.clip}
    head = published.weights.state.get("head.weight")
    stage = TokenLearnerConfig(num_tokens=0)
    config = ModelConfig(**published.model, token_learner=stage)
    model = build_model(
        config, ClipConfig(**{"num_frames": 1, **shape, **clip}), 2 if head is None else len(head)
    ).eval()
    report = load_weights(model, published.weights, allow_missing=["head.*"] if head is None else [])
    assert all(name.startswith("head.") for name in report.missing)
    return model


def assert_close(ours, reference):
    assert ours.shape == reference.shape
    assert (ours - reference).abs().max() <= 1e-5 * max(1.0, reference.abs().max())


def golden_set(golden, name):
    folder = golden / "foundation" / name
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    with np.load(folder / "io.npz") as archive:
        return read(folder), {key: torch.from_numpy(archive[key]) for key in archive.files}


TIMM = ("augreg", "clip_laion", "clip_openai_quickgelu", "deit3", "dinov2", "dinov2_reg", "mae", "siglip")
HF = ("clip_full", "clip_vision", "clip_vision_projection", "clip_vision_v5", "dinov2", "dinov2_registers")
HF = (*HF, "siglip_full", "siglip_vision", "vit")


@torch.no_grad()
@pytest.mark.parametrize("name", [*(f"timm_{name}" for name in TIMM), *(f"hf_{name}" for name in HF)])
def test_golden_image_models(golden, name):
    published, reference = golden_set(golden, name)
    image = reference["pixel_values"][:, None]
    model = build(published)
    assert_close(model.forward_features(image), reference["pooled"])
    if "logits" in reference:
        assert_close(model(image), reference["logits"])
    if name.startswith("hf_clip"):  # transformers norms the class token alone
        model.encoder.norm = nn.Identity()
    assert_close(model.forward_tokens(image)[:, 0], reference["tokens"])
    assert_close(build(published, num_frames=3).forward_features(image.expand(-1, 3, -1, -1, -1)), reference["pooled"])


@torch.no_grad()
def test_golden_timesformer(golden):
    published, reference = golden_set(golden, "timesformer")
    model, clip = build(published), reference["pixel_values"]
    assert_close(model(clip), reference["logits"])
    assert_close(model.forward_features(clip), reference["pooled"])
    tokens_BtND = model.forward_tokens(clip)
    patches = tokens_BtND[:, :, 1:].transpose(1, 2).flatten(1, 2)  # time innermost
    assert_close(torch.cat([tokens_BtND[:, 0, :1], patches], dim=1), reference["tokens"])


def test_golden_patch_resize(golden):
    path = golden / "foundation/patch_resize.npz"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    with np.load(path) as archive:
        expected = {name: torch.from_numpy(archive[name]) for name in archive.files}
    kernel = expected.pop("kernel").flatten(1)
    for name, reference in expected.items():
        resizing = "bilinear" if name.startswith("bilinear") else "bicubic_antialiased"
        resized = resize_patch(kernel, (1, 8, 8), (1, *reference.shape[2:]), resizing)
        assert_close(resized, reference.flatten(1))
        frames = resize_patch(torch.cat([kernel, kernel], dim=1), (2, 8, 8), (2, *reference.shape[2:]), resizing)
        assert_close(frames, torch.cat([resized, resized], dim=1))


REASONS = {
    "vit_giant_patch14_dinov2": ("blocks.0.mlp.fc1.weight [256, 48]", "SwiGLU"),
    "eva02_base_patch14_224": ("fc1_g", "SwiGLU"),
    "vit_base_patch16_rope_reg1_gap_256": ("q_bias", "rotary"),
    "vit_base_patch16_dinov3": ("without position embedding", "rotary"),
    "beit_base_patch16_224": ("relative_position_bias_table", "relative positions"),
    "vit_base_patch16_rpn_224": ("architecture", "norms after"),
    "vit_base_patch16_xp_224": ("q_norm", "norms"),
    "deit_base_distilled_patch16_224": ("dist_token", "distilled"),
    "aimv2_large_patch14_224": ("fc1_g", "SwiGLU"),
    "vit_small_patch16_18x2_224": ("attns", "side by side"),
    "use_swiglu_ffn": ("weights_in", "SwiGLU"),
    "resolution": ("[48, 192]", "patches"),
}


def test_golden_refusals(golden):
    path = golden / "foundation/refuse.json"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    for label, shapes in json.loads(path.read_text()).items():
        name = label.split()[-1]
        state = {key: torch.zeros(shape) for key, shape in shapes.items()}
        config = {"architecture": name}
        if label.startswith("transformers"):
            config = {"model_type": "siglip_vision_model" if "Siglip2" in label else "dinov2"}
        with refused("somewhere", *REASONS.get(name, ()), "allowed: learned positions"):
            find_reader(config, state)(config, state, "somewhere")
        if "architecture" in config and "rpn" not in name:  # a bare file
            with refused("somewhere", *REASONS.get(name, ()), "allowed: learned positions"):
                find_reader({}, state)({}, state, "somewhere")


def randomize(model, seed=0):
    """Give every parameter a random value: gains about 1, activations of usual size."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        gain = "norm" in name and name.endswith("weight") or name.endswith(("gamma", "lambda1"))
        scale = 0.2 if parameter.ndim < 2 else (parameter.numel() / len(parameter)) ** -0.5
        parameter.copy_(values * scale + gain)
    return model.eval()


TIMM_MODELS = (
    ("vit_tiny_patch16_224.augreg_in21k", 64),
    ("vit_base_patch32_224.augreg_in21k_ft_in1k", 64),
    ("vit_base_patch16_224.mae", 48),
    ("vit_small_patch8_224.dino", 32),
    ("deit_tiny_patch16_224.fb_in1k", 64),
    ("deit3_small_patch16_224.fb_in22k_ft_in1k", 64),
    ("vit_base_patch16_clip_224.laion2b", 48),
    ("vit_base_patch32_clip_quickgelu_224.openai", 64),
    ("vit_base_patch16_siglip_224.webli", 48),
    ("vit_base_patch16_siglip_gap_224.v2_webli", 48),
    ("vit_so400m_patch16_siglip_256.v2_webli", 48),
    ("vit_small_patch14_dinov2.lvd142m", 42),
    ("vit_small_patch14_reg4_dinov2.lvd142m", 42),
    ("vit_little_patch16_reg4_gap_256.sbb_in1k", 64),
)


@torch.no_grad()
@pytest.mark.parametrize(("name", "size"), TIMM_MODELS)
def test_timm_on_random_weights_at_two_sizes(tmp_path, name, size):
    timm = pytest.importorskip("timm")
    original = randomize(timm.create_model(name, pretrained=False, img_size=size, depth=2))
    timm.models.save_for_hf(original, tmp_path, safe_serialization=True)
    published = read(tmp_path)
    larger = timm.create_model(name, pretrained=False, img_size=(2 * size, size), depth=2).eval()
    resized = timm.models.vision_transformer.checkpoint_filter_fn(original.state_dict(), larger)
    larger.load_state_dict(resized)
    for reference, frame_size in ((original, (size, size)), (larger, (2 * size, size))):
        image = torch.randn(2, 3, *frame_size)
        model = build(published, frame_size=frame_size, short_side=2 * size)
        tokens = reference.forward_features(image)
        assert_close(model.forward_features(image[:, None]), reference.forward_head(tokens, pre_logits=True))
        if "head.weight" in published.weights.state:
            assert_close(model(image[:, None]), reference(image))


def test_settings_of_every_timm_architecture():
    """Heads, epsilon and activation are in no config.json of timm."""
    timm = pytest.importorskip("timm")
    for name in timm.list_models(["vit_*", "deit*", "eva*", "beit*"]):
        if "sapiens" in name:
            continue
        with torch.device("meta"):
            model = timm.create_model(name, depth=1)
        if not isinstance(model, timm.models.VisionTransformer):
            continue
        config = {"architecture": name, "pretrained_cfg": model.pretrained_cfg, "global_pool": model.global_pool}
        try:
            published = find_reader(config, model.state_dict())(config, model.state_dict(), name)
        except Exception as e:
            print("refused", name, e)
            continue
        block = model.blocks[0]
        s = published.model
        act = type(block.mlp.act).__name__
        acts = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}
        want = (block.attn.num_heads, block.norm1.eps, acts[act])
        got = (s["num_heads"], s["norm_eps"], s["activation"])
        if want != got:
            print("DIFF", name, want, got)
