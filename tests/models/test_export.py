"""Exported files: logits of the model at any batch size for every architecture, metadata, and failures."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import vidtl
from tests.refusals import refused
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model, export
from vidtl.models.export import Check, export_model, model_metadata, read_metadata

CLIP = ClipConfig(num_frames=4, frame_size=(16, 32), short_side=32, mean=(0.4, 0.5, 0.6), stride=3, target_fps=12.5)
IMAGE = replace(CLIP, num_frames=1, frame_size=(32, 32))
BACKGROUND = replace(CLIP, background=True, short_side=0, std=(1.0, 1.0, 1.0))
CLASSES = ("walking", "läuft", "走る")


def vivit(form, tokens=None, **settings):
    stage = tokens or TokenLearnerConfig(num_tokens=0)
    sizes = {"width": 8, "depth": 1, "num_heads": 2, "temporal_depth": 1, "tubelet": (2, 8, 8), "pooling": "mean"}
    return ModelConfig(form=form, token_learner=stage, **(sizes | settings)), CLIP  # type: ignore[arg-type]


def learner(version, fuser=None):
    return TokenLearnerConfig(num_tokens=3, after_block=0, version=version, fuser=fuser)


def t2t(tokenizer):
    return ModelConfig(architecture="t2t_vit", tokenizer=tokenizer, width=16, depth=1, num_heads=2, mlp_width=16), IMAGE


def mini(**settings):
    sizes: dict[str, Any] = {"width": 8, "depth": 2, "num_heads": 2, "head_width": 4, "mlp_width": 8}
    return ModelConfig(architecture="mini_vit", token_learner=learner("v1"), **sizes, **settings)


def baseline(name, frames):
    return ModelConfig(architecture="pytorchvideo", size=name), replace(IMAGE, num_frames=frames)


MODELS: dict[str, tuple[ModelConfig, ClipConfig]] = {
    "joint-cls": vivit("joint", pooling="cls"),
    "joint-v1-uniform": vivit("joint", learner("v1"), tubelet_sampling="uniform"),
    "encoder-v1.1-fuser": vivit("factorised_encoder", learner("v1.1", fuser=True)),
    "encoder-v1.1-all-tokens": vivit("factorised_encoder", learner("v1.1"), temporal_input="tokens"),
    "self-attention-v1-fuser": vivit("factorised_self_attention", learner("v1", fuser=True)),
    "dot-product-v1.1": vivit("factorised_dot_product", learner("v1.1"), positions="sincos_3d"),
    "encoder-background": (vivit("factorised_encoder", learner("v1"))[0], BACKGROUND),
    "t2t-performer": t2t("t2t_performer"),
    "t2t-transformer": t2t("t2t_transformer"),
    "mini": (mini(tubelet=(1, 8, 8)), IMAGE),
    "mini-t2t": (mini(tokenizer="t2t_performer"), replace(IMAGE, frame_size=(24, 24), short_side=24)),
    "x3d_xs": baseline("x3d_xs", 4),
}
SLOW_MODELS = {
    "encoder-cls": vivit("factorised_encoder", pooling="cls"),
    "self-attention": vivit("factorised_self_attention", pooling="max"),
    "t2t-tokens": vivit("factorised_encoder", tokenizer="t2t_performer", tubelet=(1, 16, 16)),
    "x3d_m": baseline("x3d_m", 16),
    "slow_r50": baseline("slow_r50", 4),
    "slowfast_r50": baseline("slowfast_r50", 4),
    "r2plus1d_r50": baseline("r2plus1d_r50", 2),
    "mvit_b_16x4": baseline("mvit_b_16x4", 16),
}
"""Tested only where VIDTL_STRESS is set, which tests every model in both formats."""

EVERYTHING = "VIDTL_STRESS" in os.environ
IN_ONNX = ["self-attention-v1-fuser", "encoder-background", "t2t-performer"]


def made(name):
    torch.manual_seed(0)
    model = build_model(*(MODELS | SLOW_MODELS)[name], len(CLASSES))
    torch.nn.init.normal_(model.classifier()[1].weight)  # logits of a fresh head are 0
    model.class_names = CLASSES
    return model


@pytest.mark.parametrize("name", [*MODELS, *(SLOW_MODELS if EVERYTHING else ())])
def test_every_model_is_exported_for_any_batch(name, tmp_path):
    checks = export_model(made(name), tmp_path / "model.pt2")
    assert [check.batch for check in checks] == [1, 3]
    assert all(check.max_difference <= 1e-5 * check.largest_logit and check.largest_logit > 0 for check in checks)
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt2"]


@pytest.mark.parametrize("name", [*MODELS, *SLOW_MODELS] if EVERYTHING else IN_ONNX)
def test_logits_in_onnxruntime_for_any_batch(name, tmp_path):
    import onnxruntime

    path = tmp_path / "model.onnx"
    model = made(name)
    assert [check.batch for check in export_model(model, path)] == [1, 3]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    clips = torch.randn(5, *model.clip_shape)
    (logits_BK,) = session.run(["logits_BK"], {"input_BTCHW": clips.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits_BK), model(clips), rtol=1e-4, atol=1e-4)
    assert session.get_inputs()[0].shape == ["batch", *clips.shape[1:]]
    assert read_metadata(path) == model_metadata(model, None)
    assert str(Path(export.__file__).parent).encode() not in path.read_bytes(), "paths of this machine"


def test_metadata_and_a_fixed_batch(tmp_path):
    path = tmp_path / "model.pt2"
    model = made("joint-cls")
    model.multi_label = True
    export_model(model, path, batch=2)
    found = read_metadata(path)
    assert found["vidtl_version"] == vidtl.__version__
    assert (found["architecture"], found["batch"], found["multi_label"]) == ("vivit", 2, True)
    assert tuple(found["class_names"]) == CLASSES
    clip = found["clip"]
    assert (clip["num_frames"], clip["frame_size"], clip["stride"], clip["target_fps"]) == (4, [16, 32], 3, 12.5)
    assert (clip["mean"], clip["std"]) == ([0.4, 0.5, 0.6], [0.5, 0.5, 0.5])
    assert path.stat().st_size < 500_000, "without the example clips"
    with pytest.raises(RuntimeError, match="equal to 2"):
        torch.export.load(path).module()(torch.randn(1, 4, 3, 16, 32))


@pytest.mark.parametrize("wrong", [lambda y: y + 0.01, lambda y: y[:1]])
def test_a_file_that_differs_is_not_written(wrong, tmp_path, monkeypatch):
    right = export.FORMATS[".pt2"]
    opened = right._replace(open=lambda path: lambda clips: wrong(right.open(path)(clips)))
    monkeypatch.setitem(export.FORMATS, ".pt2", opened)
    path = tmp_path / "model.pt2"
    path.write_bytes(b"an older file")
    with refused("model.pt2", "not written", "batch of 3"):
        export_model(made("joint-cls"), path, batch=3)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("model.pt2", b"an older file")]


def test_errors_leave_no_file(tmp_path, monkeypatch):
    def fill(program, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with torch.device("meta"):
        huge = build_model(ModelConfig(size="H"), ClipConfig(), 400)
    with refused("2.8 GB", ".onnx", "2 GB"):
        export_model(huge, tmp_path / "huge.onnx")
    model = made("joint-cls")
    with refused("batch", 0, "1 or more"):
        export_model(model, tmp_path / "model.pt2", 0)
    monkeypatch.setitem(export.FORMATS, ".pt2", export.FORMATS[".pt2"]._replace(write=fill))
    with refused("model.pt2", "No space left"):
        export_model(model, tmp_path / "model.pt2", batch=1)
    monkeypatch.setattr(export, "find_spec", lambda name: None if name.startswith("onnx") else name)
    with refused("onnx, onnxscript, onnxruntime", ".[export]"):
        export_model(model, tmp_path / "model.onnx")
    export.check_output(tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []
    Check(1, 1e-5, 1.0).require(tmp_path, 1e-4)
    for values in ((float("nan"), 1.0), (0.0, float("nan"))):
        with refused("nan", "was not written"):
            Check(1, *values).require(tmp_path, 1e-4)
