"""Pictures of the maps of a model and of training clips, in a run and before it; runs on classes of unequal size."""

import json
from collections import Counter

import av
import numpy as np
import pytest
import train
import training_run
import visualize
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.tools.conftest import copy_videos
from vidtl.annotations.description import load_description, read_records


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
    assert (record["timesteps"], record["frames_per_timestep"], len(record["maps"])) == (2, 4, 4)


def test_rollout_without_token_learner(run_main, random_model, toy, tmp_path):
    model = random_model(tmp_path / "model", num_tokens=0)
    options = ["--data.dataset", "toy", "--data.root", toy, "--data.num_workers", "0", "--num_videos", "2"]
    run_main(visualize.main, "--checkpoint", model, *options)
    for number in range(2):
        stem = tmp_path / f"model/pictures/rollout-{number:03d}"
        check_animations(stem, num_frames=8)
        assert json.loads(stem.with_suffix(".json").read_text())["maps"] == ["rollout"]


@pytest.fixture(scope="module")
def unbalanced(toy, tmp_path_factory):
    root, videos = tmp_path_factory.mktemp("unbalanced"), sorted((toy / "videos/train").iterdir())
    for name, chosen in {"train/many": videos[:8], "train/few": videos[8:10], "val/many": videos[10:12]}.items():
        copy_videos(root / name, {video.name: video for video in chosen})
    return root


def test_pictures_show_the_input_of_the_first_step(run_main, toy, tiny, tmp_path, monkeypatch):
    inputs, drawn, compute = [], [], training_run.batch_input
    for module in (training_run, visualize):
        draw = module.draw_clips
        monkeypatch.setattr(module, "draw_clips", lambda *given, draw=draw: (drawn.append(given[0]), draw(*given)))

    def record(*given, **settings):
        inputs.append(compute(*given, **settings))
        return inputs[-1]

    monkeypatch.setattr(training_run, "batch_input", record)
    options = [*tiny, "--data.root", toy, "--training.batch_size", "16", "--augmentation.preset", "videomae_kinetics"]
    options += ["--augmentation.cutmix_alpha", "0"]
    run_main(train.main, *options, "--schedule.length", "1 epoch", "--output_dir", tmp_path / "run")
    run_main(visualize.main, "clips", *options, "--output_dir", tmp_path / "before")
    input_BTCHW, targets_BK = (tensor[:12].numpy() for tensor in inputs[0])
    frames_BTHWC = np.rint((input_BTCHW * 0.5 + 0.5).clip(0, 1) * 255).transpose(0, 1, 3, 4, 2)
    names = read_records(load_description("toy"), "train", toy).classes.names
    assert len(drawn) == 2
    for clips in drawn:
        np.testing.assert_array_equal([clip.frames for clip in clips], frames_BTHWC)
        for clip, targets_K in zip(clips, targets_BK, strict=True):
            shares: Counter[str] = Counter()
            for label in clip.labels:
                percent, _, name = label.partition("% ")
                shares[name] += int(percent)
            assert shares == {names[k]: pytest.approx(100 * targets_K[k], abs=1) for k in np.flatnonzero(targets_K)}
    with Image.open(tmp_path / "before/clips.gif") as gif, Image.open(tmp_path / "run/clips.png") as png:
        assert gif.n_frames == 8
        size = png.size
    events = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    (shown,) = events.Images("clips")
    assert (shown.step, shown.width, shown.height) == (0, *size)


def test_a_balanced_run_says_its_counts_and_resumes_bitwise(run_main, unbalanced, tiny, tmp_path):
    options = [*tiny, "--data.dataset", "", "--data.root", unbalanced, "--schedule.name", "constant"]
    weights = []
    for folder, lengths in (("whole", [2]), ("broken", [1, 2])):
        for length in lengths:
            given = ["--data.balance", "sampling", "--output_dir", tmp_path / folder]
            _, errors = run_main(train.main, *options, *given, "--schedule.length", f"{length} epochs")
            assert "smallest class few (2 videos), largest many (8 videos); an epoch visits 5 videos" in errors
        weights.append((tmp_path / folder / "checkpoints/step-00000004/model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    given = ["--data.balance", "loss", "--output_dir", tmp_path / "whole"]
    run_main(train.main, *options, *given, refused=["data.balance", "sampling", "loss"])
