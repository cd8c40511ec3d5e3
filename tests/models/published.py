"""Published weights in tests: reading, building, writing with changes, and comparing with the original library."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from vidtl.config import ClipConfig, TokenLearnerConfig
from vidtl.models.weights.load import PublishedModel
from vidtl.models.weights.published import build_published

NO_LEARNER = TokenLearnerConfig(num_tokens=0)


def build(published: PublishedModel, **clip: Any) -> Any:
    settings = {"num_frames": 1, **published.clip, **clip}
    return build_published(published, ClipConfig(**settings), num_classes=2)[0].eval()


def clip_of(video_BTCHW: Tensor) -> dict[str, Any]:
    _, num_frames, _, *size = video_BTCHW.shape
    return {"num_frames": num_frames, "frame_size": tuple(size), "short_side": max(size)}


def assert_close(ours: Tensor, reference: Tensor, place: object = "") -> None:
    assert ours.shape == reference.shape
    error = (ours - reference).abs().max().item()
    assert error <= 1e-5 * max(1.0, reference.abs().max().item()), f"{place}: off by {error}"


def write_changed(folder: Path, source: Path, state: Mapping[str, Tensor] | None = None, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    config = json.loads((source / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    save_file(dict(state or load_file(source / "model.safetensors")), folder / "model.safetensors")
    return folder
