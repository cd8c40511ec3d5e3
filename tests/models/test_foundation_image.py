"""Published image models and TimeSformer: values of the original libraries, reproduced from their files."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.models.published import assert_close, build
from tests.refusals import refused
from vidtl.models.embedding import resize_patch
from vidtl.models.weights.families import find_reader
from vidtl.models.weights.files import read_state


def read(folder, **changes):
    config, state = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    config |= {"preprocessor": {}, **changes}
    return find_reader(config, state)(config, state, str(folder))


def golden_set(golden, name):
    folder = golden / "foundation" / name
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


CROPPED = {"size": {"shortest_edge": 40}, "crop_size": {"height": 24, "width": 24}, "do_center_crop": True}
SQUASHED = {"size": {"height": 24, "width": 24}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("timm_augreg", {}, {"short_side": 36, "mean": (0.5,) * 3}),  # crop 0.9
        ("timm_dinov2", {}, {"short_side": 42, "std": (0.229, 0.224, 0.225)}),
        ("hf_vit", {}, {"frame_size": (32, 32), "short_side": 32, "mean": (0.5,) * 3}),
        ("hf_dinov2", {}, {"mean": (0.485, 0.456, 0.406)}),
        ("hf_vit", {"preprocessor": CROPPED}, {"frame_size": (24, 24), "short_side": 40}),
        ("hf_vit", {"preprocessor": SQUASHED}, {"frame_size": (24, 24), "short_side": 24, "std": (0.4, 0.5, 0.6)}),
        ("hf_vit", {"preprocessor": {"image_mean": 0.1, "image_std": 0.2}}, {"mean": (0.1,) * 3, "std": (0.2,) * 3}),
        ("hf_vit", {"preprocessor": {"image_mean": None, "image_std": None}}, {"mean": (0.5,) * 3}),
        ("hf_dinov2", {"image_size": 48}, {"frame_size": (42, 42), "short_side": 48}),  # patches of 14
    ],
)
def test_clips_of_the_evaluation(golden, caplog, name, changes, expected):
    clip = read(golden / "foundation" / name, **changes).clip
    assert expected == {key: clip[key] for key in expected}
    assert not {"num_frames", "stride"} & clip.keys()
    assumes = name.startswith("hf") and not changes.get("preprocessor", {}).get("image_mean")
    assert assumes == ("assumed: clip.mean" in caplog.text)


def test_golden_patch_resize(golden):
    with np.load(golden / "foundation/patch_resize.npz") as archive:
        expected = {name: torch.from_numpy(archive[name]) for name in archive.files}
    kernel = expected.pop("kernel").flatten(1)
    for name, reference in expected.items():
        resizing = "bilinear" if name.startswith("bilinear") else "bicubic_antialiased"
        resized = resize_patch(kernel, (1, 8, 8), (1, *reference.shape[2:]), resizing)
        assert_close(resized, reference.flatten(1))
        frames = resize_patch(torch.cat([kernel, kernel], dim=1), (2, 8, 8), (2, *reference.shape[2:]), resizing)
        assert_close(frames, torch.cat([resized, resized], dim=1))


@pytest.mark.parametrize(
    ("name", "changes", "parts"),
    [
        ("timm_augreg", {"global_pool": "max", "model_args": {"num_heads": 4}}, ("global_pool", "'max'", "'avg'")),
        ("timm_augreg", {"model_args": {"num_heads": 4, "act_layer": "silu"}}, ("act_layer", "'silu'", "'gelu'")),
        ("timm_augreg", {"architecture": "vit_base_patch16_rope_ape_224"}, ("rope_ape", "rotary")),
        ("timm_augreg", {"architecture": "vit_pe_core_base_patch16_224"}, ("vit_pe_core", "rotary")),
        ("timm_augreg", {"model_args": {}}, ("heads", "width 48", "model_args.num_heads")),
        ("hf_vit", {"hidden_act": "relu"}, ("hidden_act", "'relu'")),
        ("hf_vit", {"id2label": {"1": "run"}}, ("id2label",)),
        ("timesformer", {"attention_type": "space_only"}, ("attention_type", "'space_only'", "divided_space_time")),
    ],
)
def test_settings_of_other_models_are_refused(golden, name, changes, parts):
    folder = golden / "foundation" / name
    with refused(folder, *parts):
        read(folder, **changes)


REASONS = {
    "vit_giant_patch14_dinov2": ("blocks.0.mlp.fc1.weight [256, 48]", "SwiGLU"),
    "eva02_base_patch14_224": ("fc1_g", "SwiGLU"),
    "vit_base_patch16_rope_reg1_gap_256": ("rotary",),
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
    for label, shapes in json.loads((golden / "foundation/refuse.json").read_text()).items():
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
        gain = name.endswith(("gamma", "lambda1")) or ("norm" in name and name.endswith("weight"))
        scale = 0.2 if parameter.ndim < 2 else (parameter.numel() / len(parameter)) ** -0.5
        parameter.copy_(values * scale + gain)
    return model.eval()


TIMM_MODELS = {
    64: """vit_tiny_patch16_224.augreg_in21k vit_base_patch32_224.augreg_in21k_ft_in1k deit_tiny_patch16_224.fb_in1k
        deit3_small_patch16_224.fb_in22k_ft_in1k vit_base_patch32_clip_quickgelu_224.openai
        vit_little_patch16_reg4_gap_256.sbb_in1k""",
    48: """vit_base_patch16_224.mae vit_base_patch16_clip_224.laion2b vit_base_patch16_siglip_224.webli
        vit_base_patch16_siglip_gap_224.v2_webli vit_so400m_patch16_siglip_256.v2_webli""",
    42: "vit_small_patch14_dinov2.lvd142m vit_small_patch14_reg4_dinov2.lvd142m",
    32: "vit_small_patch8_224.dino",
}
"""Names by image size."""

AVERAGES = ({"global_pool": "avg"}, {"global_pool": "avg", "fc_norm": False})
"""Readouts that leave the class token alone."""


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "size", "changes"),
    [
        *((name, size, {}) for size, names in TIMM_MODELS.items() for name in names.split()),
        *(("vit_tiny_patch16_224", 64, each) for each in AVERAGES),
    ],
)
def test_timm_on_random_weights_at_two_sizes(tmp_path, name, size, changes):
    timm = pytest.importorskip("timm")
    original = randomize(timm.create_model(name, pretrained=False, img_size=size, depth=2, **changes))
    timm.models.save_for_hf(original, tmp_path, safe_serialization=True)
    published = read(tmp_path)
    larger = timm.create_model(name, pretrained=False, img_size=(2 * size, size), depth=2, **changes).eval()
    resized = timm.models.vision_transformer.checkpoint_filter_fn(original.state_dict(), larger)
    larger.load_state_dict(resized)
    for reference, frame_size in ((original, (size, size)), (larger, (2 * size, size))):
        image = torch.randn(2, 3, *frame_size)
        model = build(published, frame_size=frame_size, short_side=2 * size)
        tokens = reference.forward_features(image)
        assert_close(model.forward_features(image[:, None]), reference.forward_head(tokens, pre_logits=True))
        if "head.weight" in published.weights.state:
            assert_close(model(image[:, None]), reference(image))


OTHER_PARTS = (
    r"radio|intern|sapiens|mci|_r\d*_|resnet|18x2|rpn|xp_|_d(little|wee|pwee)|_pwee|giant_patch14_(dinov2|reg)"
)


def test_settings_of_every_timm_architecture():
    """Stock config.json files of timm state neither heads nor epsilon nor activation."""
    timm = pytest.importorskip("timm")
    activations = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}
    read_some = 0
    for name in timm.list_models("vit_*", module="vision_transformer"):
        if "sapiens" in name:  # no depth of 1
            continue
        with torch.device("meta"):
            model = timm.create_model(name, depth=1)
        config, state = {"architecture": name, "global_pool": model.global_pool}, model.state_dict()
        if re.search(OTHER_PARTS, name):
            with refused(name, "allowed"):
                find_reader(config, state)(config, state, name)
            continue
        settings, block = find_reader(config, state)(config, state, name).model, model.blocks[0]
        assert (settings["num_heads"], settings["norm_eps"]) == (block.attn.num_heads, block.norm1.eps), name
        assert settings["activation"] == activations[type(block.mlp.act).__name__], name
        read_some += 1
    assert read_some > 100


def test_activation_is_that_of_training():
    """timm's notes tell which weights of CLIP were trained with QuickGELU; either architecture loads them."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        state = timm.create_model("vit_base_patch16_clip_224", depth=1).state_dict()
    for name in timm.list_pretrained("vit_*_clip_*"):
        architecture, _, tag = name.partition(".")
        config = {"architecture": architecture, "pretrained_cfg": {"tag": tag}}
        is_quick = "quickgelu" in name or bool(timm.get_pretrained_cfg(name).notes)
        found = find_reader(config, state)(config, state, name).model["activation"]
        assert found == ("quick_gelu" if is_quick else "gelu"), name


def rename_keys(state, rules):
    for pattern, new in rules.items():
        state = {re.sub(pattern, new, name): tensor for name, tensor in state.items()}
    return state


OPEN_CLIP = {
    r"^(?!head)": "visual.", "cls_token": "class_embedding", "pos_embed": "positional_embedding",
    r"patch_embed\.proj": "conv1", "norm_pre": "ln_pre", r"visual\.norm": "visual.ln_post",
    r"blocks\.": "transformer.resblocks.", r"norm([12])\.": r"ln_\1.", r"qkv\.": "in_proj_",
    r"attn\.proj": "attn.out_proj", "fc1": "c_fc", "fc2": "c_proj",
}  # fmt: skip
BARE = ("deit3_small_patch16_224", "vit_small_patch14_reg4_dinov2", "vit_base_patch16_clip_224")


@torch.no_grad()
@pytest.mark.parametrize("name", BARE)
def test_bare_files_with_the_names_of_their_authors(tmp_path, caplog, name):
    timm = pytest.importorskip("timm")
    size = 42 if "dinov2" in name else 64
    original = timm.create_model(name, pretrained=False, img_size=size, depth=2, num_classes=0 if size == 42 else 5)
    state = randomize(original).state_dict()
    if "deit3" in name:
        state = {"model": rename_keys(state, {r"ls(\d)\.gamma": r"gamma_\1"})}
    elif "clip" in name:
        original.head.bias.zero_()
        del state["head.bias"]
        projection = {"visual.proj": state.pop("head.weight").T, "text_projection": torch.ones(3, 3)}
        state = rename_keys(state, OPEN_CLIP) | projection | {"transformer.resblocks.0.ln_1.weight": torch.ones(3)}
    else:
        row = torch.randn(1, 1, 384)
        state["cls_token"], state["pos_embed"] = state["cls_token"] - row, torch.cat([row, state["pos_embed"]], dim=1)
        state = rename_keys(state, {"reg_token": "register_tokens", r"blocks\.(\d)": r"blocks.\1.\1"})
        state["mask_token"] = torch.ones(1, 384)
    torch.save(state, tmp_path / "weights.pth")
    state = read_state(tmp_path / "weights.pth")
    published = find_reader({}, state)({}, state, "weights.pth")
    assert f"weights.pth has no config.json; assumed: num_heads {original.blocks[0].attn.num_heads}" in caplog.text
    image, model = torch.randn(2, 3, size, size), build(published)
    reference = original.forward_head(original.forward_features(image), pre_logits=True)
    assert_close(model.forward_features(image[:, None]), reference)
    if "head.weight" in published.weights.state:
        assert_close(model(image[:, None]), original(image))


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
MLP = {"intermediate_size": 48}
LABELS = {0: "zebra", 1: "apple", 2: "walk"}
TRANSFORMERS = {
    "ViTForImageClassification": {"id2label": LABELS, "qkv_bias": False},
    "ViTModel": {"hidden_act": "gelu_new"},
    "CLIPVisionModel": {"hidden_act": "gelu"},
    "CLIPVisionModelWithProjection": {"projection_dim": 24},
    "CLIPForImageClassification": {"id2label": LABELS},
    "SiglipVisionModel": {},
    "SiglipForImageClassification": {"id2label": LABELS},
    "Dinov2Model": {},
    "Dinov2ForImageClassification": {"id2label": LABELS},
    "Dinov2WithRegistersModel": {},
}


@torch.no_grad()
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_on_random_weights_at_two_sizes(tmp_path, name):
    transformers = pytest.importorskip("transformers")
    family = re.match("ViT|CLIP|Siglip|Dinov2WithRegisters|Dinov2", name)[0]
    sizes = SMALL | TRANSFORMERS[name] | ({"mlp_ratio": 2} if "Dinov2" in name else MLP)
    if name in ("CLIPForImageClassification", "SiglipForImageClassification"):
        vision = {key: sizes.pop(key) for key in (*SMALL, *MLP)}
        config = getattr(transformers, f"{family}Config")(vision_config=vision, **sizes)
    else:
        config = getattr(transformers, family + ("VisionConfig" if "Vision" in name else "Config"))(**sizes)
    original = randomize(getattr(transformers, name)(config))
    original.save_pretrained(tmp_path)
    published = read(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    modules = find_reader(config, original.state_dict())(config, original.state_dict(), "names of the modules")
    assert modules.weights.state.keys() == published.weights.state.keys()
    assert all(torch.equal(tensor, published.weights.state[key]) for key, tensor in modules.weights.state.items())
    scores = name.startswith(("ViTFor", "SiglipFor"))
    assert list(published.weights.class_names) == (list(LABELS.values()) if scores else [])
    for frame_size in ((32, 32), (48, 64)):
        image = torch.randn(2, 3, *frame_size)
        options = {} if "Dinov2" in name else {"interpolate_pos_encoding": True}
        model = build(published, frame_size=frame_size, short_side=64)
        encoder = original
        if "ImageClassification" in name and not scores:
            encoder = original.vision_model if family == "CLIP" else original.dinov2
        output = encoder(image, **options)
        if scores or "Projection" in name:
            assert_close(model(image[:, None]), output.logits if scores else output.image_embeds)
        elif name == "ViTModel":
            assert_close(model.forward_features(image[:, None]), output.last_hidden_state[:, 0])
        else:
            assert_close(model.forward_features(image[:, None]), output.pooler_output)


@torch.no_grad()
@pytest.mark.parametrize(("num_classes", "stated"), [(5, {"stride": 32}), (174, {"sampling": "segments"})])
def test_timesformer_on_random_weights(tmp_path, num_classes, stated):
    transformers = pytest.importorskip("transformers")
    config = transformers.TimesformerConfig(num_frames=8, num_labels=num_classes, **SMALL, **MLP)
    original = randomize(transformers.TimesformerForVideoClassification(config))
    original.save_pretrained(tmp_path)
    published = read(tmp_path)
    assert stated.items() <= published.clip.items()
    for num_frames, frame_size in ((8, (32, 32)), (4, (48, 48))):
        original.config.num_frames, original.config.image_size = num_frames, frame_size[0]  # read in each forward pass
        clip = torch.randn(2, num_frames, 3, *frame_size)
        model = build(published, num_frames=num_frames, frame_size=frame_size, short_side=48)
        assert_close(model(clip), original(clip.flip(2) if num_classes == 174 else clip).logits)
