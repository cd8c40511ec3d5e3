"""T2T-ViT: the authors' outputs and counts, any image size, files as released."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.errors import UserError
from vidtl.models import build_model, load_model_directory, save_model_directory
from vidtl.models.position import Grid
from vidtl.models.t2t import TokensToToken
from vidtl.models.t2t_vit import T2TViT
from vidtl.models.vivit import ViViT
from vidtl.models.weights.image_vit import image_vit_weights
from vidtl.models.weights.pretrained import load_pretrained
from vidtl.models.weights.t2t import infer_t2t_config, read_t2t

SMALL = ModelConfig(architecture="t2t_vit", width=48, depth=3, num_heads=3, mlp_width=144, token_width=16)
GOLDEN = {kind: replace(SMALL, token_module=kind) for kind in ("performer", "transformer")}

# Parameters with and without the frozen ones (position table, Performer features); 1000 classes, 224 pixels.
COUNTS = [
    ("performer", 7, 4_310_222, 4_255_694),
    ("performer", 10, 5_889_230, 5_834_702),
    ("performer", 12, 6_941_902, 6_887_374),
    ("performer", 14, 21_545_550, 21_465_806),
    ("performer", 19, 39_177_422, 39_085_070),
    ("performer", 24, 64_105_934, 64_000_974),
    ("transformer", 14, 21_541_070, 21_465_422),
    ("transformer", 19, 39_172_942, 39_084_686),
    ("transformer", 24, 64_101_454, 64_000_590),
]


def image_clip(side: int = 64, other: int | None = None) -> ClipConfig:
    size = (side, other or side)
    return ClipConfig(num_frames=1, frame_size=size, short_side=max(size))


def small_model(config: ModelConfig = SMALL, clip: ClipConfig | None = None) -> T2TViT:
    model = build_model(config, clip or image_clip(), 7)
    assert isinstance(model, T2TViT)
    return model.eval()


@pytest.mark.parametrize("kind", ["performer", "transformer"])
def test_tokens_and_logits_are_the_authors(golden: Path, kind: str) -> None:
    folder = golden / f"t2t_vit_{kind}"
    model = small_model(GOLDEN[kind])
    report = load_pretrained(model, folder / "model.safetensors")
    assert report.missing == report.unexpected == report.resized == ()
    expected = np.load(folder / "io.npz")
    input_BTCHW = torch.from_numpy(expected["images"]).unsqueeze(1)
    with torch.no_grad():
        outputs = {"tokens": model.tokens(input_BTCHW).squeeze(1), "logits": model(input_BTCHW)}
    for name, ours in outputs.items():
        error = np.abs(ours.numpy() - expected[name]).max()
        assert error <= 1e-5 * max(1, np.abs(expected[name]).max()), name


@pytest.mark.parametrize(("kind", "size", "all_parameters", "trainable"), COUNTS)
def test_parameter_counts_are_exact(kind: str, size: int, all_parameters: int, trainable: int) -> None:
    config = ModelConfig(architecture="t2t_vit", size=size, token_module=kind)  # type: ignore[arg-type]
    with torch.device("meta"):
        model = build_model(config, ClipConfig(num_frames=1), 1000)
    assert sum(p.numel() for p in model.parameters()) == all_parameters
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trainable


def test_a_larger_image_only_lengthens_the_position_table() -> None:
    config = ModelConfig(architecture="t2t_vit")
    with torch.device("meta"):
        model = build_model(config, image_clip(384), 1000)
    assert sum(p.numel() for p in model.parameters()) == 21_691_470


def test_a_new_table_is_sines_and_cosines_of_the_token_number() -> None:
    table = small_model().positions.weight
    assert not table.requires_grad
    for position, column in [(0, 0), (0, 1), (3, 0), (5, 6), (16, 47)]:
        angle = position / 10000 ** (2 * (column // 2) / 48)
        expected = np.cos(angle) if column % 2 else np.sin(angle)
        assert table[position, column].item() == pytest.approx(expected, abs=1e-6)


def test_frame_sizes_need_not_be_square_or_multiples_of_16() -> None:
    model = small_model(clip=image_clip(50, 90))
    assert model.positions.grid == Grid(1, 3, 6)
    assert model(torch.randn(2, 1, 3, 50, 90)).shape == (2, 7)


def test_every_frame_of_a_clip_is_tokenised_by_itself() -> None:
    torch.manual_seed(0)
    module = TokensToToken("performer", (32, 48), 24, token_width=16).eval()
    clip_BTCHW = torch.randn(2, 3, 3, 32, 48)
    tokens_BtND = module(clip_BTCHW)
    assert tokens_BtND.shape == (2, 3, 6, 24)
    torch.testing.assert_close(tokens_BtND[:, 1:2], module(clip_BTCHW[:, 1:2]))


@pytest.mark.parametrize("tokenizer", ["t2t_performer", "t2t_transformer"])
def test_a_vivit_sees_t2t_tokens_of_every_frame(tokenizer: str) -> None:
    torch.manual_seed(0)
    vivit = ModelConfig(
        width=24,
        depth=2,
        num_heads=3,
        temporal_depth=1,
        tokenizer=tokenizer,  # type: ignore[arg-type]
        tubelet=(1, 16, 16),
        token_learner=TokenLearnerConfig(num_tokens=2, after_block=1),
    )
    clip = ClipConfig(num_frames=3, frame_size=(32, 48), short_side=48)
    model = build_model(vivit, clip, 5)
    input_BTCHW = torch.randn(2, 3, 3, 32, 48)
    tokens_BtND = model.embed(input_BTCHW)
    assert tokens_BtND.shape == (2, 3, 6, 24)
    torch.testing.assert_close(tokens_BtND[:, 1:2], TokensToToken.forward(model.embed, input_BTCHW[:, 1:2]))
    torch.nn.init.normal_(model.head.weight)
    model(input_BTCHW).square().sum().backward()
    frozen = {name for name, p in model.named_parameters() if p.grad is None}
    assert all(name.endswith("features") for name in frozen)
    assert model.token_maps(input_BTCHW).shape == (2, 3, 2, 2, 3)
    with pytest.raises(UserError, match="input has 2 frames; allowed: 3"):
        model(input_BTCHW[:, :2])


def test_an_image_vit_has_no_weights_for_t2t_tokens(tmp_path: Path) -> None:
    vivit = ModelConfig(width=24, depth=1, num_heads=3, tokenizer="t2t_performer", tubelet=(1, 16, 16))
    clip = ClipConfig(num_frames=2, frame_size=(32, 32), short_side=32)
    vivit = replace(vivit, token_learner=TokenLearnerConfig(num_tokens=0))
    path = tmp_path / "vit.safetensors"
    save_file({"pos_embed": torch.zeros(1, 4, 24), "patch_embed.proj.weight": torch.zeros(24, 3, 16, 16)}, path)
    model = build_model(vivit, clip, 5)
    assert isinstance(model, ViViT)
    with pytest.raises(UserError, match=r"model\.tokenizer is 't2t_performer'; allowed: 'tubelet'"):
        image_vit_weights(path, model)


def test_t2t_tokens_of_evenly_spaced_frames() -> None:
    vivit = ModelConfig(
        width=24,
        depth=1,
        num_heads=3,
        temporal_depth=1,
        tokenizer="t2t_performer",
        tubelet=(4, 16, 16),
        tubelet_sampling="uniform",
        token_learner=TokenLearnerConfig(num_tokens=0),
    )
    clip = ClipConfig(num_frames=8, frame_size=(32, 32), short_side=32)
    model = build_model(vivit, clip, 5).eval()
    input_BTCHW = torch.randn(1, 8, 3, 32, 32)
    kept = TokensToToken.forward(model.embed, input_BTCHW[:, [3, 5]])  # 8 / 3 and 16 / 3, rounded
    torch.testing.assert_close(model.embed(input_BTCHW), kept)
    for wrong in (replace(vivit, tubelet_sampling="tubelet"), replace(vivit, tubelet=(4, 8, 16))):
        with pytest.raises(UserError, match=r"model\.tubelet is .*; allowed .*: \[1, 16, 16\]"):
            build_model(wrong, clip, 5)


def test_autocast_leaves_the_performer_in_float32() -> None:
    torch.manual_seed(0)
    layer = small_model().tokens.layers[0]
    tokens = torch.randn(1, 64, 147)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(tokens)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, layer(tokens), rtol=0, atol=0)


def test_large_values_make_no_nan_where_features_underflow() -> None:
    layer = small_model().tokens.layers[0]
    with torch.no_grad():
        layer.kqv.weight.normal_(std=10.0)
        assert layer(torch.randn(1, 64, 147)).isfinite().all()


@pytest.mark.parametrize("keys", [("state_dict_ema", "state_dict"), ("state_dict",), ()])
def test_released_torch_files_load(golden: Path, tmp_path: Path, keys: tuple[str, ...]) -> None:
    state = load_file(golden / "t2t_vit_performer" / "model.safetensors")
    wrong = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    content: object = {f"module.{name}": tensor for name, tensor in state.items()}
    if keys:
        content = {"epoch": 3, "arch": "t2t", **dict.fromkeys(keys, wrong), keys[0]: content}
    path = tmp_path / "released.pth.tar"
    torch.save(content, path)
    model = small_model()
    load_pretrained(model, path)
    assert torch.equal(model.blocks[1].attn.k.weight, state["blocks.1.attn.qkv.weight"][48:96])
    assert torch.equal(model.tokens.layers[1].features, state["tokens_to_token.attention2.w"])


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "released.pth.tar"
    torch.save({"state_dict": {}, "args": image_clip()}, path)
    with pytest.raises(UserError, match="nothing else is unpickled"):
        read_t2t(path)


def test_names_that_fit_nothing_are_reported(golden: Path) -> None:
    path = golden / "t2t_vit_performer" / "model.safetensors"
    with pytest.raises(UserError, match=r"2 missing: .*qkv\.weight; 6 unexpected: .*kqv\.bias"):
        load_pretrained(small_model(GOLDEN["transformer"]), path)
    report = load_pretrained(small_model(), path, new_head=True)
    assert set(report.missing) == set(report.unused) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("kind", ["performer", "transformer"])
def test_settings_are_read_from_the_weights(golden: Path, kind: str) -> None:
    found = infer_t2t_config(read_t2t(golden / f"t2t_vit_{kind}" / "model.safetensors"))
    assert replace(found, num_heads=3) == GOLDEN[kind]  # the golden models' heads are narrower than the published 64


def test_weights_of_another_image_size_bring_their_positions_resized(golden: Path, tmp_path: Path) -> None:
    path = golden / "t2t_vit_performer" / "model.safetensors"
    source = load_file(path)["pos_embed"][0]
    model = small_model(clip=image_clip(128))
    assert load_pretrained(model, path).resized == ("positions.weight (grid 1x4x4 to 1x8x8)",)
    assert model.positions.weight.shape == (65, 48)
    torch.testing.assert_close(model.positions.weight[0], source[0])
    coarse = torch.nn.functional.avg_pool2d(model.positions.weight[1:].T.reshape(1, 48, 8, 8), 2)
    assert torch.corrcoef(torch.stack([coarse.flatten(), source[1:].T.flatten()]))[0, 1] > 0.95
    bicubic = torch.nn.functional.interpolate(source[1:].T.reshape(1, 48, 4, 4), (8, 8), mode="bicubic")
    torch.testing.assert_close(model.positions.weight[1:].T.reshape(1, 48, 8, 8), bicubic)
    save_model_directory(model, tmp_path)
    smaller = load_model_directory(tmp_path, image_clip(64))
    back = torch.nn.functional.interpolate(bicubic, (4, 4), mode="bicubic")
    torch.testing.assert_close(smaller.positions.weight[1:].T.reshape(1, 48, 4, 4), back)


def test_a_model_directory_gives_the_same_model(tmp_path: Path) -> None:
    model = small_model()
    save_model_directory(model, tmp_path, [f"class {i}" for i in range(7)])
    loaded = load_model_directory(tmp_path)
    images = torch.randn(1, 1, 3, 64, 64)
    assert torch.equal(loaded.eval()(images), model(images))
    assert isinstance(loaded, T2TViT)
    assert not loaded.positions.weight.requires_grad


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.width is 48; allowed: multiples of .*num_heads, 5"):
        small_model(replace(SMALL, num_heads=5))


def test_clips_of_several_frames_are_refused() -> None:
    with pytest.raises(UserError, match=r"clip\.num_frames is 2; allowed: 1"):
        small_model(clip=ClipConfig(num_frames=2))
    with pytest.raises(UserError, match="input has 2 frames"):
        small_model()(torch.randn(1, 2, 3, 64, 64))
    with pytest.raises(UserError, match="input has shape"):
        small_model()(torch.randn(1, 1, 3, 32, 64))
