"""The authors' and transformers' numbers, from their parameters through the public importers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model
from vidtl.models.token_learner import TokenFuser, TokenLearner
from vidtl.models.weights.flax import (
    flax_weights,
    infer_vivit_config,
    read_flax,
)
from vidtl.models.weights.huggingface import read_huggingface
from vidtl.models.weights.load import load_weights
from vidtl.models.weights.pretrained import load_pretrained

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
    """Input, output and settings of a file; videos as B T C H W."""
    with np.load(path) as archive:
        meta = json.loads(archive["meta"].tobytes())
        inputs = [torch.from_numpy(archive[name]) for name in sorted(archive.files) if name.startswith("input:")]
        return inputs, torch.from_numpy(archive["output"]), meta


def assert_same(ours, reference, path):
    assert ours.shape == reference.shape
    error = (ours - reference).abs().max().item()
    assert error <= 1e-5 * max(1.0, reference.abs().max().item()), f"{path}: off by {error}"


def flax_model(path):
    """A fresh model of the settings that the parameters and the notes beside them tell."""
    (video,), output, meta = read(path)
    form = next((form for start, form in FORMS.items() if path.stem.startswith(start)), None)
    config = infer_vivit_config(read_flax(path), form=form, after_block=meta.get("token_learner_at"))
    stage = replace(config.token_learner, pooling=meta.get("pooling", "sum"))
    config = replace(
        config,
        attention_order=meta.get("order", "time_space"),
        pooling=POOLING[meta.get("classifier", "gap")],
        token_learner=stage,
    )
    assert config.tubelet == tuple(meta["tubelet_thw"])
    clip = ClipConfig(num_frames=video.shape[1], frame_size=tuple(video.shape[2:4]), short_side=max(video.shape[2:4]))
    model = build_model(config, clip, num_classes=output.shape[1])
    return model.eval(), video.permute(0, 1, 4, 2, 3), output


@torch.no_grad()
@pytest.mark.parametrize(
    "kind", ["joint", "factorised_encoder", "factorised_self_attention", "factorised_dot_product", "token_learner"]
)
def test_flax_vivit(golden, kind):
    for path in files(golden, f"vivit_{kind}*.npz"):
        model, video, output = flax_model(path)
        assert model(video).abs().max() == 0  # so that what follows comes from the file
        report = load_pretrained(model, path)
        assert not report.missing
        assert not report.unexpected
        assert not report.resized
        assert_same(model(video), output, path)


def module_state(params, module):
    """State of one module from the parameters of the authors' module alone."""
    weights = flax_weights({f"Transformer/{module}/{path}": array for path, array in params.items()}, module)
    assert not weights.unexpected
    return {name.split(".", 3)[3]: tensor for name, tensor in weights.state.items()}


@torch.no_grad()
def test_token_learner_alone(golden):
    for path in files(golden, "token_learner_*.npz"):
        (features,), output, meta = read(path)
        params = read_flax(path)
        version = "v1" if "Conv_0/kernel" in params else "v1.1"
        module = TokenLearner(features.shape[-1], meta["num_tokens"], version, meta.get("pooling", "sum")).eval()
        module.load_state_dict(
            module_state(params, "TokenLearnerModule_0" if version == "v1" else "TokenLearnerModuleV11_0")
        )
        grid = tuple(features.shape[1:3])
        assert_same(module(features.flatten(1, 2), grid), output, path)


@torch.no_grad()
def test_token_fuser_alone(golden):
    for path in files(golden, "token_fuser*.npz"):
        (learned, features), output, _ = read(path)
        module = TokenFuser(features.shape[-1], learned.shape[1]).eval()
        module.load_state_dict(module_state(read_flax(path), "TokenFuser_0"))
        assert_same(module(learned, features), output, path)


@torch.no_grad()
def test_huggingface_directories(golden):
    for directory in files(golden, "hf_vivit_*"):
        found = read_huggingface(directory)
        model = build_model(found.model, found.clip, len(found.class_names)).eval()
        report = load_weights(model, found.weights)
        assert not report.missing
        with np.load(directory / "io.npz") as archive:
            pixels, logits = torch.from_numpy(archive["pixel_values"]), torch.from_numpy(archive["logits"])
        assert_same(model(pixels), logits, directory)


@torch.no_grad()
def test_a_changed_parameter_changes_the_output(golden):
    """The comparison above can fail: every parameter of the largest file matters."""
    path = Path(files(golden, "vivit_token_learner_*fuser.npz")[0])
    model, video, output = flax_model(path)
    video, output = video[:1], output[:1]
    weights = flax_weights(read_flax(path), str(path))
    unseen = []
    for name in weights.state:
        changed = dict(weights.state)
        changed[name] = changed[name] + 0.05 * torch.arange(changed[name].numel()).reshape(changed[name].shape).sin()
        load_weights(model, replace(weights, state=changed))
        if (model(video) - output).abs().max() <= 1e-5 * max(1.0, output.abs().max().item()):
            unseen.append(name)
    # These shift all inputs of a softmax, or all of a norm, alike; neither sees that.
    invisible = (".attn.k.bias", ".mix.bias", ".score.fc2.bias")
    assert [name for name in unseen if not name.endswith(invisible)] == []


@torch.no_grad()
def test_an_image_vit_with_token_learner_is_the_joint_form_on_one_frame(golden):
    for path in files(golden, "vit_token_learner_image*.npz"):
        (images,), output, meta = read(path)
        stage = TokenLearnerConfig(num_tokens=meta["num_tokens"], after_block=meta["token_learner_at"])
        config = ModelConfig(
            form="joint",
            width=meta["hidden"],
            depth=meta["layers"],
            num_heads=meta["heads"],
            mlp_width=meta["mlp_dim"],
            tubelet=(1, meta["patch"], meta["patch"]),
            token_learner=stage,
        )
        clip = ClipConfig(num_frames=1, frame_size=tuple(images.shape[1:3]), short_side=max(images.shape[1:3]))
        model = build_model(config, clip, output.shape[1]).eval()
        report = load_weights(model, flax_weights(read_flax(path), str(path)))
        assert report.missing == report.unexpected == ()
        assert_same(model(images.permute(0, 3, 1, 2).unsqueeze(1)), output, path)
