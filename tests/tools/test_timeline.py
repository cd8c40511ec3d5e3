"""Timelines of videos whose color changes, by a model that has learned colors: segments, files, and bad input."""

import csv
import errno
import json
import os
import shutil

import av
import numpy as np
import predict as prediction
import pytest
import torch
from PIL import Image

from benchmarks.timeline import segment_f1
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.evaluation.calibration import Calibration, write_calibration
from vidtl.evaluation.timeline import Segment
from vidtl.models import build_model, save_model_directory
from vidtl.training.checkpoint import find_checkpoint
from vidtl.video.encoder import encode_video

COLORS = {"red": (200, 40, 40), "=green": (40, 180, 40), "blue": (40, 40, 220)}
FPS, NUM_FRAMES = 10, 4
NO_TOKENS = TokenLearnerConfig(num_tokens=0)
HERE = ("--data.num_workers", "0")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Learn the colors: a single-label, a multi-label and an image model."""
    folder = tmp_path_factory.mktemp("models")
    for name, num_frames in (("single", NUM_FRAMES), ("multi", NUM_FRAMES), ("image", 1)):
        torch.manual_seed(0)
        clip = ClipConfig(num_frames=num_frames, stride=1, frame_size=(16, 16), short_side=16)
        size = ModelConfig(width=16, depth=1, temporal_depth=1, num_heads=2, tubelet=(1, 8, 8), token_learner=NO_TOKENS)
        model = build_model(size, clip, 3)
        rates = torch.tensor(list(COLORS.values()))[:, None, :, None, None] / 127.5 - 1
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(60):
            inputs = rates.expand(3, num_frames, 3, 16, 16) + 0.2 * torch.randn(3, num_frames, 3, 16, 16)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(inputs), torch.eye(3), reduction="sum")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.class_names, model.multi_label = tuple(COLORS), name == "multi"
        save_model_directory(model.eval(), folder / name)
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / "=colors.mp4"
    encode_video(path, np.concatenate([solid(name, 30) for name in ("red", "blue", "=green", "red")]), FPS)
    return path


TRUE = [("red", 0, 3), ("blue", 3, 6), ("=green", 6, 9), ("red", 9, 12)]


def solid(name, num_frames):
    return np.full((num_frames, 24, 32, 3), COLORS[name], np.uint8)


@pytest.mark.parametrize("name", ["single", "multi", "image"])
def test_segments_of_known_colors_are_found(run_main, models, video, tmp_path, name):
    options = [video, "--checkpoint", models / name, "--timeline", "--output", tmp_path / "out", *HERE]
    output, errors = run_main(prediction.main, *options, "--json", "--hop", "0.1 s", "--overlay", tmp_path / "out.mp4")
    (line,) = map(json.loads, output.splitlines())
    assert (line["path"], line["duration_s"], line["reason"]) == (str(video), 12, None)
    found = [Segment(*segment.values()) for segment in line["segments"]]
    assert segment_f1(found, [Segment(*segment, 1) for segment in TRUE], least_iou=0.9) == 1
    num_windows = 120 if name == "image" else 117
    assert f"{num_windows}/{num_windows} windows" in errors

    windows = list(map(json.loads, (tmp_path / "out/windows.jsonl").read_text().splitlines()))
    starts = [window["start_s"] for window in windows]
    assert starts == pytest.approx(np.arange(num_windows) / FPS, abs=1e-3)
    lengths_s = {round(window["end_s"] - window["start_s"], 3) for window in windows}
    assert lengths_s == {1 / FPS if name == "image" else 0.4}
    assert all(window["probabilities"]["blue"] > 0.5 for window in windows if 3 <= window["start_s"] < 5.6)
    rows = [(row["class"], float(row["start_s"])) for row in csv.DictReader((tmp_path / "out/segments.csv").open())]
    assert rows == [(each.name.replace("=", "'="), pytest.approx(each.start_s, abs=1e-3)) for each in found]
    assert Image.open(tmp_path / "out/=colors.timeline.png").size > (100, 100)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 120


def test_threshold_and_gap_decide_segments(run_main, models, video):
    options = [video, "--checkpoint", models / "multi", "--timeline", "--csv", *HERE]

    def names(*more):
        output, _ = run_main(prediction.main, *options, *more)
        return [row["class"] for row in csv.DictReader(output.splitlines())]

    assert names() == ["red", "blue", "'=green", "red"]
    assert names("--gap", "7") == ["red", "blue", "'=green"]
    assert names("--threshold", "1") == []


def test_a_calibration_gives_probabilities_and_thresholds(run_main, models, video, tmp_path):
    checkpoint = find_checkpoint(shutil.copytree(models / "multi", tmp_path / "model"))
    calibration = Calibration(
        fingerprint=checkpoint.fingerprint(), split="val", protocol="center", num_videos=3, multi_label=True,
        temperature=20, thresholds={"red": 0, "=green": 1, "blue": 1}, nll=(1, 1), ece=(0, 0),
    )  # fmt: skip
    write_calibration(calibration, checkpoint)
    options = [video, "--checkpoint", checkpoint.path, "--timeline", "--json", *HERE]
    (segment,) = json.loads(run_main(prediction.main, *options)[0])["segments"]
    assert (segment["class"], segment["start_s"], segment["end_s"]) == ("red", 0, 12)
    assert 0.4 < segment["probability"] < 0.6


def test_the_table_has_a_heading_per_file_and_short_files_one_window(run_main, models, video, tmp_path):
    encode_video(tmp_path / "short.mp4", solid("red", 2), FPS)
    options = ["--checkpoint", models / "single", "--timeline", *HERE]
    output, _ = run_main(prediction.main, tmp_path / "short.mp4", video, *options)
    heading, segment, *_ = output.splitlines()
    assert heading.split() == [str(tmp_path / "short.mp4"), "0.2", "s"]
    assert segment.split()[:4] == ["0.00", "s", "0.20", "s"]
    assert len(output.splitlines()) == 2 + 1 + len(TRUE)


def test_a_file_that_breaks_in_the_middle_keeps_what_was_read(run_main, models, tmp_path):
    noise = np.random.default_rng(0).integers(-40, 40, (60, 24, 32, 3))
    encode_video(tmp_path / "breaks.mp4", (solid("red", 60) + noise).clip(0, 255).astype(np.uint8), FPS)
    content = bytearray((tmp_path / "breaks.mp4").read_bytes())
    start, end = len(content) // 2, content.rindex(b"moov") - 4
    content[start:end] = b"\xff" * (end - start)
    (tmp_path / "breaks.mp4").write_bytes(content)
    (tmp_path / "none.mp4").write_bytes(b"none")
    paths = tmp_path / "breaks.mp4", tmp_path / "none.mp4"
    options = ["--checkpoint", models / "single", "--timeline", "--json", "--output", tmp_path / "out", *HERE]
    output, errors = run_main(prediction.main, *paths, *options, code=prediction.EXIT_UNREADABLE)
    breaks, none = map(json.loads, output.splitlines())
    assert none["reason"]
    assert none["segments"] == []
    (segment,) = breaks["segments"]
    assert (segment["class"], segment["start_s"]) == ("red", 0)
    windows = list(map(json.loads, (tmp_path / "out/windows.jsonl").read_text().splitlines()))
    read = [window for window in windows if window["probabilities"]]
    unread = [window for window in windows if window["reason"] and window["path"] == str(paths[0])]
    assert 1 < len(read) < 28
    assert segment["end_s"] == pytest.approx(max(window["end_s"] for window in read), abs=1e-3)
    counts = f"{len(unread)} of {len(read) + len(unread)} windows"
    assert breaks["reason"].startswith(f"{counts}, the first at {unread[0]['start_s']:.2f} s: ")
    rows = list(csv.DictReader((tmp_path / "out/segments.csv").open()))
    assert [bool(row["reason"]) for row in rows] == [False, True, True]
    assert "2 of 2 videos could not be read" in errors


def test_folders_of_images_have_a_timeline(run_main, models, tmp_path):
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate([*solid("blue", 10), *solid("red", 10)]):
        Image.fromarray(frame).save(tmp_path / f"frames/{number:03d}.png")
    options = [tmp_path / "frames", "--checkpoint", models / "single", "--timeline", "--json", *HERE]
    options += ["--hop", "1 frame"]
    output, _ = run_main(prediction.main, *options, "--frame_rate", "5")
    first, second = json.loads(output)["segments"]
    assert [first["class"], second["class"]] == ["blue", "red"]
    assert (first["end_s"], second["end_s"]) == (pytest.approx(2, abs=0.3), 4)
    run_main(prediction.main, *options, refused=[tmp_path / "frames", "--frame_rate"])


def test_a_full_disk_is_one_line(run_main, models, video, tmp_path):
    (tmp_path / "windows.jsonl").symlink_to("/dev/full")
    options = [video, "--checkpoint", models / "single", "--timeline", "--output", tmp_path, *HERE]
    run_main(prediction.main, *options, refused=[tmp_path / "windows.jsonl", os.strerror(errno.ENOSPC)])
