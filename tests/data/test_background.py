"""Backgrounds of fixed cameras: the frame that clips end with, by motion, in every format and order of reading."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from tests.data.conftest import CONFIG, clips_of, view_of
from tests.refusals import refused
from vidtl.annotations.records import ClassNames
from vidtl.annotations.video_files import find_videos, records_of_files
from vidtl.config import AugmentationConfig, ClipConfig, DataConfig
from vidtl.data.background import find_background
from vidtl.data.dataset import ClipKey
from vidtl.data.loader import EvalLoader, TrainLoader
from vidtl.data.protocols import get_protocol
from vidtl.data.toy import encode_video
from vidtl.data.windows import Hop, sliding_windows
from vidtl.video import Box, View, open_video

CLIP = ClipConfig(num_frames=4, stride=3, frame_size=(24, 32), short_side=0, background=True, std=(1.0, 1.0, 1.0))
WITH = replace(CONFIG, clip=CLIP, augmentation=AugmentationConfig(crop="center"))
FILES = ("mmaction2__test.mp4", "media__sample_rotate_and_reflect.mp4", "metadata-extra__FLIR_Thermal.mp4")


def background_and_frames(path, form="rgb"):
    """The background, and up to 200 whole frames at equal steps of time."""
    with open_video(path) as video:
        steps_s = np.linspace(video.times_s[0], video.times_s[-1], min(len(video.times_s), 200))
        numbers = np.array([np.flatnonzero(video.times_s >= time_s)[0] for time_s in steps_s])
        view = View(numbers, Box(0, 0, video.height, video.width))
        found = find_background(video, CLIP, DataConfig(pixel_format=form))
        return found.astype(float), video.read([view], CLIP.frame_size, form)[0].astype(float)


@pytest.mark.parametrize("form", ["planar", "rgb"])
@pytest.mark.parametrize("name", FILES)
def test_it_is_the_median_weighted_by_motion(shared_data, name, form):
    found, frames = background_and_frames(shared_data / "videos" / name, form)
    steps = [0, *(np.abs(after - before).mean() for before, after in pairwise(frames)), 0]
    weights = np.array(steps[1:]) + steps[:-1]
    order = frames.argsort(axis=0, kind="stable")
    middle = (np.cumsum(weights[order], axis=0) < weights.sum() / 2).sum(axis=0)
    expected = np.take_along_axis(np.take_along_axis(frames, order, axis=0), middle[None], axis=0)[0]
    assert found.shape == expected.shape
    assert 2 * np.abs(found - expected).mean() < min(4, np.abs(found - frames[0]).mean())  # steps are not exact


def test_who_lies_still_is_no_background(tmp_path):
    """A square crosses the picture in 20 of 100 frames and rests in the others."""
    room = np.random.default_rng(0).integers(60, 100, (12, 16, 3)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    frames = [room.copy() for _ in range(100)]
    for number, frame in enumerate(frames):
        left = max(0, 4 * (20 - number) % 80 - 40) if number < 20 else 24
        frame[16:32, left : left + 16] = 250
    encode_video(tmp_path / "room.mp4", frames, 25)
    found, seen = background_and_frames(tmp_path / "room.mp4")
    assert np.median(seen, axis=0)[10:14, 14:18].mean() > 200
    assert found[10:14, 14:18].mean() < 120
    assert np.abs(found - room[::2, ::2]).mean() < 20


@pytest.mark.parametrize("form", ["planar", "rgb"])
def test_it_is_the_last_frame_of_every_clip(records, form):
    config = replace(WITH, data=replace(CONFIG.data, pixel_format=form))
    without = replace(config, clip=replace(CLIP, background=False))
    expected, _ = background_and_frames(records.path(3), form)
    (clip,), (shorter,) = (clips_of(records, each)[ClipKey(1, 3, 1)] for each in (config, without))
    view, plain = (view_of(records, 3, each).pixels.numpy()[0] for each in (config, without))
    for pixels, first in ((clip.pixels, shorter.pixels), (view, plain)):
        assert len(pixels) == CLIP.input_frames == 5
        assert np.array_equal(pixels[:-1], first)
        assert np.array_equal(pixels[-1], expected)


def test_windows_have_it_in_any_number_of_workers(shared_data):
    videos = find_videos([shared_data / "videos" / name for name in FILES]).videos
    files = records_of_files(videos, ClassNames(("a",)), False, None)
    data = DataConfig(num_workers=1, manifest="none")
    records = sliding_windows(files, CLIP, data, Hop(frames=2)).records
    loaders = [EvalLoader(records, get_protocol("center"), CLIP, replace(data, num_workers=n)) for n in (1, 2)]
    for number, (one, other) in enumerate(zip(*loaders, strict=True)):
        assert torch.equal(one.pixels, other.pixels)
        assert number % 7 or torch.equal(one.pixels, view_of(records, number, replace(WITH, data=data)).pixels)


def test_crops_of_a_part_are_refused(records):
    with refused("augmentation.crop", "'jitter'", "center", "clip.short_side 0"):
        TrainLoader(records, replace(WITH, augmentation=AugmentationConfig()), 0, 1)
    for key, value in (("short_side", 48), ("std", (0.5, 0.5, 0.5)), ("num_frames", 1)):
        with refused(f"clip.{key}", value, "clip.background"):
            replace(CLIP, **{key: value})
