"""Pictures, animations and numbers of the maps of a model, for videos of a data set and for any file."""

import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests.refusals import assert_refusal
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import VideoModel, build_model, save_model_directory

RunMain = Callable[..., tuple[int, str, str]]


def save_model(folder: Path, num_tokens: int) -> Path:
    stage = TokenLearnerConfig(num_tokens=num_tokens, after_block=1)
    settings = ModelConfig(width=24, depth=1, temporal_depth=1, num_heads=3, tubelet=(4, 8, 8), token_learner=stage)
    clip = ClipConfig(num_frames=8, stride=2, frame_size=(32, 32), short_side=36)
    return save(folder, build_model(settings, clip, 8))


def save(folder: Path, model: VideoModel) -> Path:
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_model_directory(model, folder)
    return folder


def check_animations(stem: Path, num_frames: int) -> None:
    with Image.open(stem.with_suffix(".gif")) as gif, Image.open(stem.with_suffix(".png")) as png:
        assert gif.n_frames == num_frames
        assert min(png.size) > 400
        size = gif.size
    with av.open(str(stem.with_suffix(".mp4"))) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == num_frames
    assert (frames[0].width, frames[0].height) == size


def test_token_maps_of_files_and_folders(run_main: RunMain, toy: Path, tmp_path: Path) -> None:
    import visualize

    model = save_model(tmp_path / "model", num_tokens=4)
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    video = min((toy / "videos/val").iterdir())
    files = ["--videos", video, tmp_path / "broken.mp4", "--data.num_workers", "0"]
    code, output, errors = run_main(visualize.main, "--checkpoint", model, "--output_dir", tmp_path / "out", *files)
    assert code == 4
    assert "broken.mp4: not a video container" in errors
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"tokens-000.{suffix}" for suffix in ("gif", "json", "mp4", "png")
    ]
    assert "tokens-000.json" in output
    check_animations(tmp_path / "out/tokens-000", num_frames=8)
    record = json.loads((tmp_path / "out/tokens-000.json").read_text())
    assert (record["path"], record["kind"]) == (str(video), "tokens")
    assert (record["timesteps"], record["frames_per_timestep"]) == (2, 4)
    entropies, overlaps = np.array(record["entropy_over_time"]), np.array(record["overlap_over_time"])
    assert entropies.shape == (2, 4)
    assert overlaps.shape == (2, 4, 4)
    assert ((entropies >= 0) & (entropies <= 1)).all()
    np.testing.assert_allclose(overlaps, overlaps.swapaxes(1, 2))
    np.testing.assert_allclose(np.diagonal(overlaps, axis1=1, axis2=2), 1)
    np.testing.assert_allclose(record["entropy"], entropies.mean(axis=0))


def test_rollout_of_a_model_without_token_learner_on_its_own_data(run_main: RunMain, toy: Path, tmp_path: Path) -> None:
    import visualize

    model = save_model(tmp_path / "model", num_tokens=0)
    options = ["--data.dataset", "toy", "--data.root", toy, "--data.num_workers", "0", "--num_videos", "2"]
    code, _, errors = run_main(visualize.main, "--checkpoint", model, *options)
    assert code == 0, errors
    for number in range(2):
        stem = tmp_path / f"model/pictures/rollout-{number:03d}"
        check_animations(stem, num_frames=8)
        record = json.loads(stem.with_suffix(".json").read_text())
        assert record["maps"] == ["rollout"]
        assert np.sum(record["time_shares"]) == pytest.approx(1)
        assert record["mean_overlap"] is None


def test_a_model_without_maps_is_refused(run_main: RunMain, toy: Path, tmp_path: Path) -> None:
    import visualize

    clip = ClipConfig(num_frames=1, frame_size=(48, 48), short_side=52)
    settings = ModelConfig(architecture="mini_vit", token_learner=TokenLearnerConfig(num_tokens=0))
    model = save(tmp_path / "model", build_model(settings, clip, 8))
    options = ["--videos", min((toy / "videos/val").iterdir()), "--data.num_workers", "0"]
    code, _, errors = run_main(visualize.main, "--checkpoint", model, *options)
    assert code == 2
    assert_refusal(errors.splitlines()[-1], "ViViT", "MiniViT")


def test_a_wrong_frame_rate_is_refused(run_main: RunMain, untrained_model: Path, tmp_path: Path) -> None:
    import visualize

    options = ["--videos", tmp_path, "--frame_rate", "-1", "--output_dir", tmp_path / "out"]
    code, _, errors = run_main(visualize.main, "--checkpoint", untrained_model, *options)
    assert code == 2
    assert_refusal(errors.splitlines()[-1], "--frame_rate", -1, "above 0")
    assert not (tmp_path / "out").exists()
