"""Pictures of training clips, in a run and before it; and runs on classes of unequal size."""

from collections import Counter

import numpy as np
import pytest
import train
import training_run
import visualize
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.refusals import assert_refusal
from tests.tools.conftest import copy_videos
from vidtl.annotations.description import load_description, read_records


@pytest.fixture(scope="module")
def unbalanced(toy, tmp_path_factory):
    """Class folders of 8 and 2 videos."""
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
    _, errors = run_main(train.main, *options, *given, code=2)
    assert_refusal(errors.splitlines()[-1], "data.balance", "sampling", "loss")
