"""Export as a directory of transformers: logits and pixels of the library itself, and models that it lacks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.refusals import refused
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model
from vidtl.models.export_transformers import export_transformers

SIZES = {"width": 24, "depth": 2, "num_heads": 3, "mlp_width": 40, "tubelet": (2, 8, 8), "pooling": "cls"}
JOINT = ModelConfig(form="joint", **SIZES, activation="gelu_tanh", token_learner=TokenLearnerConfig(num_tokens=0))
CLIP = ClipConfig(num_frames=4, frame_size=(32, 32), short_side=40, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


def made(config, clip=CLIP):
    torch.manual_seed(0)
    model = build_model(config, clip, 3).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.class_names = ("left", "right", "größer")
    return model


@torch.no_grad()
@pytest.mark.parametrize(
    ("changes", "frame_size"),
    [({}, (32, 32)), ({"activation": "gelu", "norm_eps": 1e-2}, (16, 32)), ({"activation": "quick_gelu"}, (16, 16))],
)
def test_transformers_gives_the_same_logits(tmp_path, changes, frame_size):
    transformers = pytest.importorskip("transformers")
    clip = replace(CLIP, frame_size=frame_size)
    model = made(replace(JOINT, **changes), clip)
    assert export_transformers(model, tmp_path / "out").max_difference == 0
    kind = transformers.VivitForVideoClassification
    theirs, loading = kind.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(loading.values())
    assert theirs.config.id2label == dict(enumerate(model.class_names))
    clips = torch.randn(2, 4, 3, *frame_size)
    torch.testing.assert_close(theirs.eval()(pixel_values=clips).logits, model(clips), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("processor", ["VivitImageProcessor", "VivitVideoProcessor"])
def test_processors_of_transformers_give_the_pixels_of_the_model(tmp_path, processor):
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, processor):
        pytest.skip(f"this version of transformers has no {processor}")
    export_transformers(made(JOINT), tmp_path / "out")
    frames = np.random.default_rng(0).integers(256, size=(4, 40, 40, 3), dtype=np.uint8)
    read = getattr(transformers, processor).from_pretrained(tmp_path / "out")
    pixels = read([list(frames)] if "Image" in processor else [torch.from_numpy(frames).permute(0, 3, 1, 2)],
                  return_tensors="pt")["pixel_values"]  # fmt: skip
    cropped = frames[:, 4:36, 4:36].transpose(0, 3, 1, 2) / 255
    expected = (cropped - np.reshape(CLIP.mean, (3, 1, 1))) / np.reshape(CLIP.std, (3, 1, 1))
    np.testing.assert_allclose(pixels[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("form", "factorised_encoder"),
        ("pooling", "mean"),
        ("positions", "sincos_1d"),
        ("num_registers", 2),
        ("layer_scale", 0.1),
        ("token_learner", TokenLearnerConfig(num_tokens=4, after_block=1)),
    ],
)
def test_models_that_transformers_lacks(tmp_path, key, value):
    model = made(replace(JOINT, **{key: value}))
    with refused(f"model.{key}", 4 if key == "token_learner" else repr(value), "transformers"):
        export_transformers(model, tmp_path / "out")
    assert not any(tmp_path.iterdir())
