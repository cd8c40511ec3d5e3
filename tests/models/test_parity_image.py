"""An image ViT with TokenLearner is the joint form on one frame: the authors' image model gives the same logits."""

from pathlib import Path

import numpy as np
import torch

from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model
from vidtl.models.weights.flax import flax_weights, read_flax
from vidtl.models.weights.report import load_weights


def test_logits_are_the_authors(golden: Path) -> None:
    path = golden / "vit_token_learner_image.npz"
    vivit = ModelConfig(
        form="joint",
        width=24,
        depth=4,
        num_heads=3,
        mlp_width=48,
        tubelet=(1, 8, 8),
        pooling="mean",
        token_learner=TokenLearnerConfig(num_tokens=4, after_block=2, version="v1.1"),
    )
    clip = ClipConfig(num_frames=1, frame_size=(32, 32), short_side=32)
    model = build_model(vivit, clip, 7).eval()
    report = load_weights(model, flax_weights(read_flax(path), str(path)))
    assert report.missing == report.unexpected == ()
    with np.load(path) as expected:
        input_BTCHW = torch.from_numpy(expected["input:0"]).permute(0, 3, 1, 2).unsqueeze(1)
        with torch.no_grad():
            error = np.abs(model(input_BTCHW).numpy() - expected["output"]).max()
        assert error <= 1e-5 * max(1, np.abs(expected["output"]).max())
