"""Pictures, animations and numbers of the maps of a model, for videos of a data set and for any file."""

import json

import av
import numpy as np
import pytest
import visualize
from PIL import Image

from tests.refusals import assert_refusal
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model


def check_animations(stem, num_frames):
    with Image.open(stem.with_suffix(".gif")) as gif, Image.open(stem.with_suffix(".png")) as png:
        assert gif.n_frames == num_frames
        assert min(png.size) > 400
        size = gif.size
    with av.open(str(stem.with_suffix(".mp4"))) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == num_frames
    assert (frames[0].width, frames[0].height) == size


def test_token_maps_of_files_and_folders(run_main, random_model, toy, tmp_path):
    model = random_model(tmp_path / "model", num_tokens=4)
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    video = min((toy / "videos/val").iterdir())
    files = ["--videos", video, tmp_path / "broken.mp4", "--data.num_workers", "0"]
    output, errors = run_main(visualize.main, "--checkpoint", model, "--output_dir", tmp_path / "out", *files, code=4)
    assert "broken.mp4: not a video" in errors
    assert {path.suffix for path in (tmp_path / "out").glob("tokens-000.*")} == {".gif", ".json", ".mp4", ".png"}
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


def test_rollout_without_token_learner(run_main, random_model, toy, tmp_path):
    model = random_model(tmp_path / "model", num_tokens=0)
    options = ["--data.dataset", "toy", "--data.root", toy, "--data.num_workers", "0", "--num_videos", "2"]
    run_main(visualize.main, "--checkpoint", model, *options)
    for number in range(2):
        stem = tmp_path / f"model/pictures/rollout-{number:03d}"
        check_animations(stem, num_frames=8)
        record = json.loads(stem.with_suffix(".json").read_text())
        assert record["maps"] == ["rollout"]
        assert np.sum(record["time_shares"]) == pytest.approx(1)
        assert record["mean_overlap"] is None


def test_a_model_without_maps_is_refused(run_main, random_model, toy, tmp_path):
    clip = ClipConfig(num_frames=1, frame_size=(48, 48), short_side=52)
    settings = ModelConfig(architecture="mini_vit", token_learner=TokenLearnerConfig(num_tokens=0))
    model = random_model(tmp_path / "model", model=build_model(settings, clip, 8))
    options = ["--videos", min((toy / "videos/val").iterdir()), "--data.num_workers", "0"]
    _, errors = run_main(visualize.main, "--checkpoint", model, *options, code=2)
    assert_refusal(errors.splitlines()[-1], "ViViT", "MiniViT")
