"""Outputs of the authors' code and of transformers, reproduced from their parameters through the importers."""

import json

import numpy as np
import pytest
import torch

from tests.models.published import assert_close, clip_of
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model
from vidtl.models.token_learner import TokenFuser, TokenLearner
from vidtl.models.weights.flax import flax_weights, read_flax
from vidtl.models.weights.load import load_weights
from vidtl.models.weights.pretrained import load_pretrained
from vidtl.models.weights.published import load_published, read_published

FORMS = {
    "vivit_joint": "joint",
    "vivit_token_learner": "joint",
    "vivit_factorised_dot_product": "factorised_dot_product",
}
POOLING = {"token": "cls", "gap": "mean", "gmp": "max", "gsp": "sum"}


def files(golden, pattern):
    found = sorted(golden.glob(pattern))
    assert found, f"{golden} has no {pattern}"
    return found


def read(path):
    with np.load(path) as archive:
        meta = json.loads(archive["meta"].tobytes())
        inputs = [torch.from_numpy(archive[name]) for name in sorted(archive.files) if name.startswith("input:")]
        return inputs, torch.from_numpy(archive["output"]), meta


def flax_model(path):
    (video,), output, meta = read(path)
    form = next((form for start, form in FORMS.items() if path.stem.startswith(start)), None)
    settings = dict(read_published(path).model)
    learner = {"after_block": meta.get("token_learner_at"), **settings.pop("token_learner", {"num_tokens": 0})}
    settings["form"] = form or settings["form"]
    order, pooling = meta.get("order", "time_space"), POOLING[meta.get("classifier", "gap")]
    stage = TokenLearnerConfig(**learner, pooling=meta.get("pooling", "sum"))
    config = ModelConfig(**settings | {"attention_order": order, "pooling": pooling, "token_learner": stage})
    assert config.tubelet == tuple(meta["tubelet_thw"])
    video = video.permute(0, 1, 4, 2, 3)
    return build_model(config, ClipConfig(**clip_of(video)), num_classes=output.shape[1]).eval(), video, output


@torch.no_grad()
@pytest.mark.parametrize(
    "kind", ["joint", "factorised_encoder", "factorised_self_attention", "factorised_dot_product", "token_learner"]
)
def test_flax_vivit(golden, kind):
    for path in files(golden, f"vivit_{kind}*.npz"):
        model, video, output = flax_model(path)
        assert not model(video).any()  # before loading
        report = load_pretrained(model, path)
        assert report.missing == report.unexpected == report.resized == ()
        assert_close(model(video), output, path)


def module_state(params, module):
    weights = flax_weights({f"Transformer/{module}/{path}": array for path, array in params.items()}, module)
    assert not weights.unexpected
    return {name.split(".", 3)[3]: tensor for name, tensor in weights.state.items()}


@torch.no_grad()
def test_token_learner_and_fuser_alone(golden):
    for path in files(golden, "token_learner_*.npz"):
        (features,), output, meta = read(path)
        params = read_flax(path)
        version = "v1" if "Conv_0/kernel" in params else "v1.1"
        module = TokenLearner(features.shape[-1], meta["num_tokens"], version, meta.get("pooling", "sum")).eval()
        module.load_state_dict(module_state(params, f"TokenLearnerModule{'' if version == 'v1' else 'V11'}_0"))
        assert_close(module(features.flatten(1, 2), tuple(features.shape[1:3])), output, path)
    for path in files(golden, "token_fuser*.npz"):
        (learned, features), output, _ = read(path)
        module = TokenFuser(features.shape[-1], learned.shape[1]).eval()
        module.load_state_dict(module_state(read_flax(path), "TokenFuser_0"))
        assert_close(module(learned, features), output, path)


@torch.no_grad()
def test_huggingface_directories(golden):
    for directory in files(golden, "hf_vivit_*"):
        model = load_published(str(directory)).eval()
        with np.load(directory / "io.npz") as archive:
            pixels, logits = torch.from_numpy(archive["pixel_values"]), torch.from_numpy(archive["logits"])
        assert_close(model(pixels), logits, directory)


@torch.no_grad()
def test_an_image_vit_with_token_learner_is_the_joint_form_on_one_frame(golden):
    for path in files(golden, "vit_token_learner_image*.npz"):
        (images,), output, meta = read(path)
        stage = TokenLearnerConfig(num_tokens=meta["num_tokens"], after_block=meta["token_learner_at"])
        names = {"width": "hidden", "depth": "layers", "num_heads": "heads", "mlp_width": "mlp_dim"}
        sizes = {name: meta[key] for name, key in names.items()}
        tubelet = (1, meta["patch"], meta["patch"])
        config = ModelConfig(**sizes, form="joint", activation="gelu_tanh", tubelet=tubelet, token_learner=stage)
        video = images.permute(0, 3, 1, 2).unsqueeze(1)
        model = build_model(config, ClipConfig(**clip_of(video)), output.shape[1]).eval()
        report = load_weights(model, flax_weights(read_flax(path), str(path)))
        assert report.missing == report.unexpected == ()
        assert_close(model(video), output, path)
