"""Import of weights: values of each source, resized positions, and errors."""

import re
import zipfile
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file

from tests.models.published import NO_LEARNER, write_changed
from tests.refusals import refused
from vidtl.config import ClipConfig, ModelConfig
from vidtl.config.documents import read_json
from vidtl.models import build_model
from vidtl.models.embedding import Grid
from vidtl.models.weights.files import read_npz, read_state
from vidtl.models.weights.flax import flax_weights, read_flax, read_flax_vivit
from vidtl.models.weights.load import SourceWeights, load_weights
from vidtl.models.weights.pretrained import load_pretrained
from vidtl.models.weights.published import build_published, load_published, read_published
from vidtl.models.weights.transformers import read_vivit

SIZES = {"width": 24, "depth": 2, "num_heads": 2, "mlp_width": 48, "temporal_depth": 1, "tubelet": (2, 8, 8)}
SMALL = ModelConfig(form="joint", **SIZES, token_learner=NO_LEARNER)
CLIP = ClipConfig(num_frames=4, frame_size=(24, 24))
FORMS = ["joint", "factorised_encoder", "factorised_self_attention", "factorised_dot_product"]


def build(clip=CLIP, num_classes=5, **changes):
    return build_model(replace(SMALL, **changes), clip, num_classes).eval()


def save_timm(folder, pooling="mean"):
    timm, is_cls = pytest.importorskip("timm"), pooling == "cls"
    sizes = {"img_size": 24, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
    pool = {"class_token": is_cls, "global_pool": "token" if is_cls else "avg", "fc_norm": False}
    original = timm.models.VisionTransformer(**sizes, **pool, num_classes=5)
    path = folder / "timm" / "image.safetensors"
    path.parent.mkdir(exist_ok=True)
    (path.parent / "config.json").write_text('{"architecture": "vit", "model_args": {"num_heads": 2}}')
    save_file({name: torch.randn_like(tensor) / 5 for name, tensor in original.state_dict().items()}, path)
    return path, build_published(read_published(path))[0].eval()


def flax_params(model, attention, norm, mlp):
    """Return the weights with names and shapes of Flax; module numbers depend on the age of the authors' code."""
    rules = (
        (r"^embed\.proj", "embedding"),
        (r"^encoder\.norm", "Transformer/encoder_norm"),
        (r"^encoder\.blocks\.(\d+)\.", r"Transformer/encoderblock_\1/"),
        *((r"norm1", "LayerNorm_0"), (r"norm2", norm), (r"mlp\.fc(\d)", rf"{mlp}/fc\1"), (r"attn\.", f"{attention}/")),
        *((r"/fc1", "/Dense_0"), (r"/fc2", "/Dense_1"), (r"/proj\.", "/out.")),
        *((r"/q\.", "/query."), (r"/k\.", "/key."), (r"/v\.", "/value.")),
        (r"([Nn]orm\w*)\.weight", r"\1/scale"),
        *((r"\.weight", "/kernel"), (r"\.bias", "/bias")),
    )
    own = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    params = {"cls": own.pop("encoder.cls")[None, None]}
    params["Transformer/posembed_input/pos_embedding"] = own.pop("encoder.positions.weight")[None]
    params["embedding/kernel"] = rearrange(own.pop("embed.proj.weight"), "D (C h w) -> h w C D", h=8, w=8)
    for name, array in own.items():
        if re.search(r"attn\.[qkv]", name):
            array = rearrange(array, "(H d) ... -> ... H d", H=2)
        elif "attn.proj.weight" in name:
            array = rearrange(array, "D (H d) -> H d D", H=2)
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        params[name] = array.T if name.endswith("kernel") and array.ndim == 2 else array
    return params


@torch.no_grad()
def test_each_timestep_starts_as_the_image_model_on_the_central_frame(tmp_path):
    path, image = save_timm(tmp_path)
    clip = torch.randn(2, 4, 3, 24, 24)
    expected = torch.stack([image.encoder(image.embed(clip[:, frame : frame + 1]))[:, 0] for frame in (1, 3)], dim=1)
    for form in ("factorised_encoder", "factorised_self_attention"):
        model = build(form=form)
        report = load_pretrained(model, path)
        assert set(report.unused) == {"head.weight", "head.bias"}
        torch.testing.assert_close(model.encoder(model.embed(clip)), expected, rtol=1e-4, atol=1e-4)
    block = model.encoder.blocks[0]  # attention over time starts from that over space
    assert torch.equal(block.attn_time.q.weight, block.attn_space.q.weight)
    assert not block.attn_time.proj.weight.any()


@torch.no_grad()
@pytest.mark.parametrize("inflation", ["central_frame", "average"])
@pytest.mark.parametrize("form", FORMS)
def test_embedding_and_positions_of_an_image_model(tmp_path, form, inflation):
    path, image = save_timm(tmp_path, pooling="cls")
    model = build(form=form, pooling="cls" if form in FORMS[:2] else "mean")
    report = load_pretrained(model, path, inflation=inflation)
    frame = torch.randn(1, 1, 3, 24, 24)
    still = frame.expand(1, 4, -1, -1, -1)
    torch.testing.assert_close(model.embed(still), image.embed(frame).expand(-1, 2, -1, -1), rtol=1e-4, atol=1e-5)
    rows, grid_rows = model.encoder.positions.weight, image.encoder.positions.weight[1:]
    repeats = 1 if form == "factorised_encoder" else 2
    torch.testing.assert_close(rows[-9 * repeats :], grid_rows.repeat(repeats, 1))
    assert ("encoder.cls" in report.loaded) is (form in FORMS[:2])
    assert ("encoder.cls" in report.unused) is (form not in FORMS[:2])
    blocks = {name for name, _ in model.named_parameters() if ".blocks." in name and name.startswith("encoder")}
    assert {name for name in blocks - set(report.loaded) if ".norm_time." not in name} == set()


AGES = (
    ("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3"),
    ("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0"),
)


@pytest.mark.parametrize("age", AGES)
def test_the_authors_image_files_of_either_age_equal_timms(tmp_path, age):
    path, image = save_timm(tmp_path, pooling="cls")
    params = flax_params(image, *age)
    np.savez(tmp_path / "image.npz", **params, **{"pre_logits/kernel": np.zeros((24, 24), np.float32)})
    from_timm = read_published(path).weights
    from_flax = read_published(tmp_path / "image.npz").weights
    assert from_flax.state.keys() == from_timm.state.keys()
    for name, tensor in from_timm.state.items():
        assert torch.equal(from_flax.state[name], tensor), name
    assert "pre_logits/kernel" in from_flax.unused


def test_a_flax_vivit_of_single_frames_is_no_image_model(tmp_path):
    model = build(tubelet_sampling="uniform", pooling="cls", activation="gelu_tanh")
    params = flax_params(model, *AGES[1])
    np.savez(tmp_path / "video.npz", **{name: array + 1 for name, array in params.items()})
    report = load_pretrained(model, tmp_path / "video.npz")
    assert (*report.missing, *report.resized, *report.unused) == ()
    assert torch.equal(model.head.bias, torch.ones(5))


@pytest.mark.parametrize("root", ["", "params/", "optimizer/target/", "param:"])
def test_stacked_flax_parameters_of_any_training_state_are_the_flat_ones(tmp_path, root):
    name, values = "Transformer/encoderblock{}/LayerNorm_0/scale", np.arange(6.0).reshape(2, 3)
    np.savez(tmp_path / "a.npz", **{root + name.format(""): values}, **({"step": np.array(3)} if root else {}))
    found = read_flax(tmp_path / "a.npz")
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        name.format(f"_{block}"): row.tolist() for block, row in enumerate(values)
    }


def test_weights_that_do_not_fit_are_named_and_not_loaded():
    model = build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = {name: torch.ones_like(tensor) for name, tensor in before.items()}
    state["head.weight"] = torch.ones(9, 24)
    state["tail.weight"] = torch.ones(1)
    del state["encoder.norm.bias"]
    weights = SourceWeights(source="somewhere", state=state, unexpected=["Extra/kernel"])
    unexpected = "2 unexpected: Extra/kernel, tail.weight"
    with refused("somewhere", "1 missing: encoder.norm.bias", unexpected, "head.weight ([9, 24], not [5, 24])"):
        load_weights(model, weights)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    del state["head.weight"]
    del state["tail.weight"]
    weights = SourceWeights(source="somewhere", state=state)
    report = load_weights(model, weights, allow_missing=["encoder.norm.*", "head.weight"])
    assert report.missing == ("encoder.norm.bias", "head.weight")
    assert "fresh (2):\n  encoder.norm.bias\n  head.weight" in str(report)


def test_positions_of_an_unknown_grid():
    """Flax files have no grid: another length or another square size can be inferred, both at once cannot."""

    def resized(rows, grids):
        state = {"encoder.positions.weight": torch.zeros(rows, 24)}
        weights = SourceWeights(source="file", state=state, grids=grids)
        return load_weights(build(), weights, allow_missing=["*"]).resized

    known = {"encoder.positions.weight": Grid(2, 6, 6)}
    for rows, grids, grid in ((36, {}, "4x3x3"), (32, {}, "2x4x4"), (72, known, "2x6x6")):
        assert resized(rows, grids) == (f"encoder.positions.weight (grid {grid} to 2x3x3)",)
    with refused("file", "72 rows", "8x3x3", "2x6x6", "tools/convert_weights.py"):
        resized(72, {})


def test_transformers_names_of_either_kind(golden):
    directory = sorted(golden.glob("hf_vivit_*"))[0]
    config = read_json(directory / "config.json") | {"preprocessor": {}}
    state = load_file(directory / "model.safetensors")
    saved = read_vivit(config, state, "saved").weights
    rules = [
        (r"encoder\.layer\.", "layers."),
        (r"attention\.attention\.(query|key|value)", lambda match: f"attention.{match[1][0]}_proj"),
        (r"attention\.output\.dense", "attention.o_proj"),
        (r"intermediate\.dense", "mlp.fc1"),
        (r"(layers\.\d+)\.output\.dense", r"\1.mlp.fc2"),
        (r"^vivit\.", ""),
    ]
    renamed = {"pooler.dense.weight": torch.zeros(2, 2)}
    for name, tensor in state.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        renamed[name] = tensor
    modules = read_vivit(config, renamed, "modules").weights
    assert modules.state.keys() == saved.state.keys()
    assert all(torch.equal(modules.state[name], tensor) for name, tensor in saved.state.items())
    assert modules.unused == ["pooler.dense.weight"]
    assert not modules.unexpected


@pytest.mark.parametrize(("key", "value"), [("hidden_act", "relu"), ("qkv_bias", False), ("model_type", "swin")])
def test_settings_of_transformers_without_counterpart_are_refused(golden, tmp_path, key, value):
    write_changed(tmp_path, sorted(golden.glob("hf_vivit_*"))[0], **{key: value})
    with refused(value if key == "model_type" else f"{key} is {value!r}"):
        read_published(tmp_path)


def labels(count, step=1):
    return {str(step * k): f"name {k}" for k in range(count)}


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (labels(7), ()),
        (labels(400), ("7 classes", "400 different names")),
        (dict.fromkeys(labels(7), "name 0"), ("7 classes", "1 different names")),
        (labels(7, step=2), ("id2label", "'2': 'name 1'")),
        (["name 0"], ("id2label", "['name 0']")),
        (None, ("no class names", "training.init_new_head")),
    ],
)
def test_rows_of_transformers_follow_the_names_if_those_are_whole(golden, tmp_path, names, parts):
    source = sorted(golden.glob("hf_vivit_*"))[0]
    write_changed(tmp_path, source, id2label=names)
    found = read_published(source)
    model = build_model(ModelConfig(**found.model, token_learner=NO_LEARNER), ClipConfig(**found.clip), 2)
    model.class_names = ("name 4", "name 1")
    with refused(tmp_path, *parts) if parts else nullcontext():
        load_pretrained(model, tmp_path)
        assert torch.equal(model.head.weight, found.weights.state["head.weight"][[4, 1]])


class Trap:
    """Object whose unpickling runs code."""

    def __reduce__(self):
        return (print, ("pickle ran",))


def test_pickles_of_objects_are_refused(tmp_path, capsys):
    torch.save({"weight": Trap()}, tmp_path / "trap.pth")
    np.savez(tmp_path / "trap.npz", weight=np.array([Trap()], dtype=object))
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    for name in ("trap.pth", "trap.npz", "torn.safetensors", "absent.pth", "weights.h5"):
        with refused(name):
            load_pretrained(build(), tmp_path / name)
    assert "pickle ran" not in capsys.readouterr().out
    path, image = save_timm(tmp_path)
    torch.save({"state_dict": load_file(path)}, path.with_suffix(".pth"))
    model = build(form="factorised_encoder")
    load_pretrained(model, path.with_suffix(".pth"))  # tensors alone are read
    assert torch.equal(model.encoder.norm.weight, image.encoder.norm.weight)


def test_flax_parameters_of_another_model_are_refused(golden):
    params = read_flax(sorted(golden.glob("vivit_joint*.npz"))[0])
    with refused("x has no embedding/kernel"):
        read_flax_vivit({}, {"Dense_0/kernel": torch.zeros(2, 2)}, "x")
    assert flax_weights({**params, "Resnet/kernel": np.zeros((2, 2))}, "x").unexpected == ["Resnet/kernel"]
    with refused("after_block"):
        load_published(golden / "vivit_token_learner_v11.npz")


@pytest.mark.parametrize("name", ["shared.pth", "repeated.pth", "zeros.npz", "zeros.pth"])
def test_contents_far_larger_than_their_file_are_refused(tmp_path, name):
    file, zeros = tmp_path / name, torch.zeros(100_000_000, dtype=torch.int8)
    one = zeros[:1].clone()
    shared = {"shared.pth": {"a": one.expand(10**12)}, "repeated.pth": {name: one.expand(10**7) for name in "abcdefgh"}}
    if name == "zeros.npz":
        np.savez_compressed(file, a=zeros.numpy())
    elif name == "zeros.pth":
        torch.save({"a": zeros}, plain := tmp_path / "plain.pth")
        with zipfile.ZipFile(plain) as stored, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
            for entry in stored.namelist():
                packed.writestr(entry, stored.read(entry))
    else:
        torch.save(shared[name], file)
    with refused(file, "20 times"):
        (read_npz if file.suffix == ".npz" else read_state)(file)
