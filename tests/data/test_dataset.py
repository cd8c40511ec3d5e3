"""Records to batches on encoded files: frames, draws, substitutes of broken files, and evaluation views."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from tests.data.conftest import CONFIG, clips_of, config_with, eval_loader, view_of
from tests.refusals import refused
from vidtl.annotations.records import ClassNames
from vidtl.annotations.video_files import find_videos, records_of_files
from vidtl.config import AUGMENTATION_PRESETS, AugmentationConfig, ClipConfig, DataConfig, TrainingConfig
from vidtl.data.background import find_background
from vidtl.data.batch import batch_input
from vidtl.data.dataset import ClipKey, collate, first_records
from vidtl.data.gaps import check_classes
from vidtl.data.loader import EvalLoader, TrainLoader, check_readable
from vidtl.data.protocols import get_protocol, view_boxes
from vidtl.data.sampling import train_box, train_indices
from vidtl.data.windows import Hop, sliding_windows
from vidtl.runtime.seeding import generator
from vidtl.video import Box, View, open_video


def test_planes_and_rgb_show_the_same_clip(records):
    clips = [clips_of(records, config_with("data", pixel_format=name))[ClipKey(0, 3, 1)] for name in ("planar", "rgb")]
    assert [clip.pixels.shape for (clip,) in clips] == [(8, 48, 32), (8, 32, 32, 3)]
    assert {clip.pixels.dtype for (clip,) in clips} == {np.dtype("uint8")}
    planar, rgb = (batch_input(collate([clip]), CONFIG.clip)[0] for clip in clips)
    # Planar boxes lie on even pixels, and a shift of one pixel shows at 32 x 32.
    difference = (planar - rgb).abs().mean()
    assert difference < 0.1
    assert (planar - rgb.flip(1)).abs().mean() > difference


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("augmentation", [CONFIG.augmentation, AUGMENTATION_PRESETS["videomae_kinetics"]])
def test_a_resumed_run_draws_the_same(records, num_workers, augmentation):
    """From the middle of a run, pixels, augmentation and mixing equal those of the uninterrupted run."""
    jittered = dataclasses.replace(augmentation, color_jitter_probability=0.5)
    config = dataclasses.replace(
        CONFIG, augmentation=jittered, training=TrainingConfig(batch_size=12, accumulation_steps=2)
    )
    expected = list(itertools.islice(TrainLoader(records, config, 0, 1).iterate(), 4, 6))
    workers = dataclasses.replace(config, data=dataclasses.replace(config.data, num_workers=num_workers))
    batches = list(itertools.islice(TrainLoader(records, workers, 0, 1).iterate(2), 2))
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch.pixels, other.pixels)
        assert batch.augmentation == other.augmentation
        assert batch.mixing == other.mixing
        assert (batch.mixing is not None) == (augmentation.mixup_alpha > 0)
        for first, second in zip(batch_input(batch, config.clip), batch_input(other, config.clip), strict=True):
            assert torch.equal(first, second)


def test_nothing_readable_stops_training_and_is_a_failure_in_evaluation(copied):
    for index in range(len(copied)):
        copied.path(index).write_bytes(b"no video")
    with refused("none of 11 videos"):
        clips_of(copied)[ClipKey(0, 0, 1)]
    with refused("none of 11 videos"):
        next(TrainLoader(copied, config_with("data", num_workers=1), 0, 1).iterate())
    with refused("data.root", copied.root, "none of 8 videos"):
        check_readable(copied, CONFIG)
    view = view_of(copied, 2)
    assert (view.pixels, view.failure.path) == (None, copied.paths[2])


def test_a_class_without_any_video_ends_training_unless_allowed(copied, caplog):
    first, second = copied.with_labels(copied.labels(0)).tolist()
    name = copied.classes.names[copied.labels(0)[0]]
    copied.path(first).unlink()
    check_classes(CONFIG.data, copied, copied)
    copied.path(second).unlink()
    with refused(copied.annotation, "1 classes", repr(name), "data.allow_empty_classes"):
        check_classes(CONFIG.data, copied, copied)
    rest = copied.select(np.delete(np.arange(len(copied)), [first, second]))
    check_classes(CONFIG.data, rest, rest)  # a class of the list that no split has
    with refused(repr(name)):
        check_classes(CONFIG.data, rest, copied)  # known gaps
    check_classes(config_with("data", allow_empty_classes=True).data, copied, copied)
    assert name in caplog.text


def test_links_out_of_the_root_are_read_unless_told_otherwise(copied, tmp_path):
    copied.path(0).rename(tmp_path / "elsewhere.mp4")
    copied.path(0).symlink_to(tmp_path / "elsewhere.mp4")
    assert view_of(copied, 0).failure is None
    inside = config_with("data", follow_links=False)
    assert "outside" in view_of(copied, 0, inside).failure.reason
    assert view_of(copied, 1, inside).failure is None


def test_a_broken_video_is_replaced_by_one_of_its_class_if_there_is_one(copied):
    first, second = copied.with_labels(copied.labels(0)).tolist()
    name = copied.classes.names[copied.labels(0)[0]]
    copied.path(first).write_bytes(copied.path(first).read_bytes()[:100])
    clips = [clips_of(copied)[ClipKey(epoch, first, 1)][0] for epoch in (0, 0, 1)]
    assert np.array_equal(clips[0].pixels, clips[1].pixels)
    for clip in clips:
        assert np.array_equal(clip.targets, copied.targets(first))
        assert [failure.path for failure in clip.failures] == [copied.paths[first]]
    copied.path(second).write_bytes(b"no video")
    config = config_with("augmentation", repeats=2)
    for epoch in range(3):
        clip, other = clips_of(copied, config)[ClipKey(epoch, first, 1)]
        failures = [(failure.record, failure.classes, failure.attempt) for failure in clip.failures]
        assert failures == [(first, (name,), 0), (second, (name,), 1)]
        assert other.failures == []
        assert not np.array_equal(clip.targets, copied.targets(first))


def test_the_order_of_substitutes_depends_on_the_key(records):
    dataset = clips_of(records)
    keys = [ClipKey(epoch, record, 1) for epoch in (0, 1) for record in (0, 3)]
    orders = [list(dataset._substitutes(key)) for key in keys]
    for key, order in zip(keys, orders, strict=True):
        assert sorted([key.record, *order]) == list(range(len(records)))
        assert {key.record, order[0]} == set(records.with_labels(records.labels(key.record)))  # two of each class
    assert len(set(map(tuple, orders))) == len(keys)
    assert [list(dataset._substitutes(key)) for key in keys] == orders


def test_missing_videos_take_no_attempt(copied, monkeypatch):
    for index in set(range(len(copied))) - {5}:
        copied.path(index).unlink()
    monkeypatch.setattr("vidtl.data.dataset.MAX_SUBSTITUTIONS", 1)
    (clip,) = clips_of(copied)[ClipKey(0, 0, 1)]
    assert [failure.record for failure in clip.failures] == [0]
    assert np.array_equal(clip.targets, copied.targets(5))
    monkeypatch.setattr("vidtl.data.dataset._MAX_CANDIDATES", 0)  # a root that is not mounted
    assert list(clips_of(copied)._substitutes(ClipKey(0, 0, 1))) == []


@pytest.mark.parametrize("pixel_format", ["planar", "rgb"])
def test_padding_reports_no_failures_and_may_be_zeros(copied, pixel_format):
    config = dataclasses.replace(config_with("data", pixel_format=pixel_format), training=TrainingConfig(batch_size=24))
    loader = TrainLoader(copied, config, 0, 1)
    broken, *others = (key.record for key in loader.keys(0, 0))  # 16 videos, the first 8 of them twice
    assert broken in others
    copied.path(broken).write_bytes(b"no video")
    assert [failure.record for failure in next(loader.iterate()).failures] == [broken]
    real = clips_of(copied, config)[ClipKey(0, others[0], 1)]
    blank = clips_of(dataclasses.replace(copied, root=copied.root / "videos"), config)[ClipKey(0, 1, 0)]
    batch = collate([real, blank])
    assert (batch.weights.tolist(), batch.failures) == ([1, 0], [])
    assert not batch.pixels[1:].any()


def test_clip_labels_are_those_of_the_clip(multi_records):
    dataset, count = clips_of(multi_records), len(multi_records)
    seen = np.stack([[dataset[ClipKey(epoch, i, 1)][0].targets for i in range(count)] for epoch in range(2)])
    whole = multi_records.video_targets()
    assert (seen <= whole).all()
    assert seen.mean() < whole.mean()  # a clip of 15 frames misses some of the motions of 40 frames and more


@pytest.mark.parametrize("sampling", ["random_span", "segments"])
def test_repeated_clips_are_those_of_separate_reads(records, sampling):
    augmentation = AugmentationConfig(color_jitter_probability=1.0)
    single = dataclasses.replace(config_with("clip", sampling=sampling), augmentation=augmentation)
    config = dataclasses.replace(single, augmentation=dataclasses.replace(augmentation, repeats=3))
    for index in range(2):
        clips = clips_of(records, config)[ClipKey(2, index, 1)]
        assert len({clip.pixels.tobytes() for clip in clips}) == len({clip.augmentation for clip in clips}) == 3
        (first,) = clips_of(records, single)[ClipKey(2, index, 1)]
        assert np.array_equal(clips[0].pixels, first.pixels)
        assert clips[0].augmentation == first.augmentation
        with open_video(records.path(index), root=records.root) as video:
            for view, clip in enumerate(clips):
                rng = generator(0, 2, index, view, 0)
                frames = train_indices(len(video.times_s), config.clip, rng)
                box = train_box(video.height, video.width, config.augmentation, config.clip, rng)
                assert np.array_equal(clip.pixels, video.read([View(frames, box)], (32, 32), "planar")[0])


def test_repeated_clips_are_consecutive_and_padding_is_not_mixed(records):
    augmentation = AugmentationConfig(mixup_alpha=0.8, repeats=2)
    config = dataclasses.replace(CONFIG, augmentation=augmentation, training=TrainingConfig(batch_size=12))
    loader = TrainLoader(records, config, 0, 1)
    last = next(loader.iterate(loader.steps_per_epoch - 1))
    videos = [key.record for key in loader.keys(loader.steps_per_epoch - 1, 0)]
    assert np.array_equal(last.targets, np.repeat([records.targets(video) for video in videos], 2, axis=0))
    real = int(last.weights.sum())
    assert 1 < real < 12
    assert last.mixing.partners == (*reversed(range(real)), *range(real, 12))


@pytest.mark.parametrize(
    ("index", "fps", "start", "shown"),
    [(0, 15, 1, [0, 2, 5, 7, 10, 12, 15, 17, 20, 22]), (1, 12, 2, list(range(0, 24, 2)))],
)
def test_target_fps_takes_frames_by_time(records, index, fps, start, shown):
    """Of 24 frames, clips have those that a player at 6 frames per second shows."""
    view_config = config_with("clip", target_fps=6, stride=1)
    clip_config = config_with("clip", target_fps=6, stride=1, num_frames=len(shown))  # all of them: there is one start
    view = view_of(records, index, view_config)
    (clip,) = clips_of(records, clip_config)[ClipKey(0, index, 1)]
    with open_video(records.path(index), root=records.root) as video:
        assert video.fps == pytest.approx(fps)
        (box,) = view_boxes(get_protocol("center"), video.height, video.width, view_config.clip)
        expected = video.read([View(np.array(shown[start : start + 8]), box)], (32, 32), "planar")
        assert np.array_equal(view.pixels, expected)
        rng = generator(0, 0, index, 0, 0)
        rng.random()  # the start
        box = train_box(video.height, video.width, clip_config.augmentation, clip_config.clip, rng)
        assert np.array_equal(clip.pixels, video.read([View(np.array(shown), box)], (32, 32), "planar")[0])


def test_segments_bound_the_frames(records):
    starts, ends = np.full(len(records), 0.8), np.full(len(records), 1.2)
    half = dataclasses.replace(records, segment_starts_s=starts, segment_ends_s=ends)
    pixels = view_of(half, 0, config_with("clip", short_video="hold", stride=1)).pixels
    distinct = {frame.numpy().tobytes() for frame in pixels[0]}
    assert 3 <= len(distinct) <= 7  # 0.4 s at 12 or 15 frames per second, the last one held
    failure = view_of(dataclasses.replace(records, segment_starts_s=starts + 99), 0).failure
    assert "99.8 s" in str(failure)


@pytest.mark.parametrize(("workers", "missing"), [(0, []), (0, [0, 4]), (2, [1, 2]), (2, range(7))])
def test_every_video_is_evaluated_once_and_small_ones_are_batched(copied, monkeypatch, workers, missing):
    some = first_records(copied, 7)
    for index in missing:
        some.path(index).unlink()
    monkeypatch.setattr("vidtl.data.loader._BATCHES_PER_WORKER", 1)
    loader = eval_loader(some, num_workers=workers)
    assert loader.videos_per_batch() == (3 if workers else 7)
    assert len(loader) == 7
    for video, index in zip(loader, range(7), strict=True):
        alone = view_of(some, index)
        assert (alone.pixels is None) == (index in missing)
        if alone.pixels is not None:
            assert torch.equal(video.pixels, alone.pixels)
            assert (video.frames == alone.frames).all()
            alone = dataclasses.replace(alone, pixels=video.pixels, frames=video.frames)
        assert video == alone


def test_batches_of_videos_are_small_and_occupy_all_workers(records):
    for count, workers, num_frames, protocol, videos in (
        (10_000, 2, 1, "center", 32),
        (100, 2, 1, "center", 6),
        (15, 2, 1, "center", 1),
        (10_000, 0, 32, "center", 21),  # 32 x 32 x 48 bytes each
        (10_000, 2, 32, "vivit_4x3", 1),
    ):
        config = config_with("clip", num_frames=num_frames)
        data = dataclasses.replace(config.data, num_workers=workers)
        loader = EvalLoader(records, get_protocol(protocol), config.clip, data, range(count))
        assert loader.videos_per_batch() == videos


FIXED = ClipConfig(num_frames=4, stride=3, frame_size=(24, 32), short_side=0, background=True, std=(1.0, 1.0, 1.0))
WITH_BACKGROUND = dataclasses.replace(CONFIG, clip=FIXED, augmentation=AugmentationConfig(crop="center"))
FILES = ("mmaction2__test.mp4", "media__sample_rotate_and_reflect.mp4", "metadata-extra__FLIR_Thermal.mp4")


def background_and_frames(path, form="rgb"):
    with open_video(path) as video:
        steps_s = np.linspace(video.times_s[0], video.times_s[-1], min(len(video.times_s), 200))
        numbers = np.array([np.flatnonzero(video.times_s >= time_s)[0] for time_s in steps_s])
        view = View(numbers, Box(0, 0, video.height, video.width))
        found = find_background(video, FIXED, DataConfig(pixel_format=form))
        return found.astype(float), video.read([view], FIXED.frame_size, form)[0].astype(float)


@pytest.mark.parametrize("form", ["planar", "rgb"])
@pytest.mark.parametrize("name", FILES)
def test_a_background_is_the_median_weighted_by_motion(shared_data, name, form):
    found, frames = background_and_frames(shared_data / "videos" / name, form)
    steps = np.abs(np.diff(frames, axis=0)).reshape(len(frames) - 1, -1).mean(axis=1)
    weights = np.append(steps, 0) + np.append(0, steps)
    order = frames.argsort(axis=0, kind="stable")
    middle = (np.cumsum(weights[order], axis=0) < weights.sum() / 2).sum(axis=0)
    expected = np.take_along_axis(np.take_along_axis(frames, order, axis=0), middle[None], axis=0)[0]
    error, of_plain = (np.abs(each - expected).mean() for each in (found, np.median(frames, axis=0)))
    assert error < min(2, of_plain)  # steps of motion are not exact


@pytest.mark.parametrize("form", ["planar", "rgb"])
def test_a_background_is_the_last_frame_of_every_clip(records, form):
    config = dataclasses.replace(WITH_BACKGROUND, data=dataclasses.replace(CONFIG.data, pixel_format=form))
    without = dataclasses.replace(config, clip=dataclasses.replace(FIXED, background=False))
    expected, _ = background_and_frames(records.path(3), form)
    clips = [clips_of(records, each)[ClipKey(1, 3, 1)][0].pixels for each in (config, without)]
    views = [view_of(records, 3, each).pixels.numpy()[0] for each in (config, without)]
    for pixels, first in (clips, views):
        assert np.array_equal(pixels, np.concatenate([first, expected[None]]))


def test_windows_have_a_background_in_any_number_of_workers(shared_data):
    videos = find_videos([shared_data / "videos" / name for name in FILES]).videos
    files, data = records_of_files(videos, ClassNames(("a",)), False, None), DataConfig(manifest="none")
    records = sliding_windows(files, FIXED, data, Hop(frames=2)).records
    workers = [dataclasses.replace(data, num_workers=count) for count in (1, 2)]
    passes = [EvalLoader(records, get_protocol("center"), FIXED, each) for each in workers]
    for number, videos in enumerate(zip(*passes, strict=True)):
        alone = (
            view_of(records, number, dataclasses.replace(WITH_BACKGROUND, data=data)) if number % 7 == 0 else videos[1]
        )
        assert all(torch.equal(video.pixels, alone.pixels) for video in videos)


def test_clips_that_do_not_suit_a_background_are_refused(records):
    with refused("augmentation.crop", "'jitter'", "center", "clip.short_side 0"):
        TrainLoader(records, dataclasses.replace(WITH_BACKGROUND, augmentation=AugmentationConfig()), 0, 1)
    for key, value in (("short_side", 48), ("std", (0.5, 0.5, 0.5)), ("num_frames", 1)):
        with refused(f"clip.{key}", value, "clip.background"):
            dataclasses.replace(FIXED, **{key: value})
