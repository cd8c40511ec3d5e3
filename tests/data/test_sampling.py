"""Frames and boxes of training clips."""

import numpy as np
import pytest

from vidtl.config import AugmentationConfig, ClipConfig
from vidtl.data.sampling import box_of_crop, resample_indices, resized_size, span_indices, train_box, train_indices
from vidtl.video import Box

SIZES = [(256, 340), (340, 256), (1080, 1920), (720, 720), (96, 128), (8, 8), (1, 1), (100, 3000), (47, 51)]


def random_segments(num_available, num_frames, rng):
    return train_indices(num_available, ClipConfig(num_frames=num_frames, sampling="segments"), rng)


def test_every_start_that_fits_is_drawn_equally_often():
    rng = np.random.default_rng(0)
    clip = ClipConfig(num_frames=4, stride=3, short_video="hold")
    spans = np.stack([train_indices(20, clip, rng) for _ in range(6000)])
    np.testing.assert_array_equal(np.diff(spans, axis=1), 3)
    counts = np.bincount(spans[:, 0], minlength=20)
    assert (counts[:11] > 430).all()  # 6000 draws over 11 starts are 545 each
    assert (counts[11:] == 0).all()
    assert spans.max() == 19


@pytest.mark.parametrize("num_available", [1, 2, 9, 10])
def test_short_videos_keep_their_rule(num_available):
    rng = np.random.default_rng(0)
    clips = [ClipConfig(num_frames=4, stride=3, short_video=rule) for rule in ("hold", "loop")]
    held, looped = ({tuple(train_indices(num_available, clip, rng)) for _ in range(200)} for clip in clips)
    assert held == {tuple(span_indices(0, 4, 3, num_available, "hold"))}
    starts = range(num_available) if num_available < 10 else [0]
    assert looped == {tuple((start + 3 * np.arange(4)) % num_available) for start in starts}


@pytest.mark.parametrize("crop", ["jitter", "random_resized", "multi_scale", "center"])
def test_later_draws_do_not_depend_on_the_video(crop):
    after = set()
    for frames, (height, width) in zip([300, 3, 1, 64, 65, 62, 63, 1000, 10], SIZES, strict=True):
        rng = np.random.default_rng(5)
        train_indices(frames, ClipConfig(), rng)
        train_box(height, width, AugmentationConfig(crop=crop), ClipConfig(), rng)
        after.add(rng.random())
    assert len(after) == 1


def test_resampling_to_the_videos_own_rate_changes_nothing():
    for fps in (24, 25, 30000 / 1001, 30, 60):
        times = np.arange(300) / fps
        np.testing.assert_array_equal(resample_indices(times, fps), np.arange(300))
        # Matroska and FLV keep whole milliseconds, rounded or cut.
        for clock in (np.round(times, 3), np.floor(times * 1000) / 1000):
            np.testing.assert_array_equal(resample_indices(clock, fps), np.arange(300))


def test_resampling_shows_what_a_player_at_that_rate_shows():
    assert resample_indices(np.arange(60) / 60, 30).tolist() == list(range(0, 60, 2))
    assert resample_indices(np.arange(4) / 15, 30).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert resample_indices(np.arange(12) / 30, 25).tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert resample_indices(np.array([0.0]), 30).tolist() == [0]
    # Variable rate: a frame stays until the next one's time.
    assert resample_indices(np.array([0.0, 0.1, 0.5, 0.6]), 10).tolist() == [0, 1, 1, 1, 1, 2, 3, 3]


def test_resizing_and_crops_of_the_resized_frame():
    sizes = {(256, 340): (256, 340), (360, 640): (256, 455), (640, 360): (455, 256), (500, 500): (256, 256)}
    assert {size: resized_size(*size, 256) for size in sizes} == sizes
    assert box_of_crop((512, 680), (256, 340), Box(16, 58, 224, 224)) == Box(32, 116, 448, 448)
    assert box_of_crop((128, 170), (256, 340), Box(16, 58, 224, 224)) == Box(8, 29, 112, 112)
    assert box_of_crop((2, 2), (256, 256), Box(0, 255, 1, 1)) == Box(0, 1, 1, 1)
    center, rng = AugmentationConfig(crop="center"), np.random.default_rng(0)
    assert train_box(256, 340, center, ClipConfig(), rng) == Box(16, 58, 224, 224)
    assert train_box(257, 341, center, ClipConfig(short_side=257), rng) == Box(17, 59, 224, 224)


@pytest.mark.parametrize("crop", ["jitter", "random_resized", "center", "multi_scale"])
def test_boxes_lie_inside_the_frame(crop):
    rng = np.random.default_rng(0)
    for size in SIZES:
        boxes = [train_box(*size, AugmentationConfig(crop=crop), ClipConfig(), rng) for _ in range(50)]
        assert {type(value) for box in boxes for value in box} == {int}
        assert (np.array(boxes) >= [0, 0, 1, 1]).all()
        assert all(box.top + box.height <= size[0] and box.left + box.width <= size[1] for box in boxes)


def test_jitter_scales_height_and_width_independently_within_its_range():
    rng = np.random.default_rng(0)
    augmentation = AugmentationConfig(jitter_range=(0.9, 1.33))
    boxes = np.array([train_box(512, 680, augmentation, ClipConfig(), rng) for _ in range(2000)])
    # 224 of a frame resized from 512 to 256 and scaled by s are 448 / s pixels of the source.
    heights, widths = 448 / boxes[:, 2], 448 / boxes[:, 3]
    for factors in (heights, widths):
        assert factors.min() == pytest.approx(0.9, abs=0.01)
        assert factors.max() == pytest.approx(1.33, abs=0.01)
        assert factors.mean() == pytest.approx(1.115, abs=0.02)
    assert abs(np.corrcoef(heights, widths)[0, 1]) < 0.1
    assert boxes[:, :2].min(axis=0).tolist() == [0, 0]
    assert (boxes[:, :2] + boxes[:, 2:]).max(axis=0).tolist() == [512, 680]
    limited = AugmentationConfig(jitter_range=(0.5, 0.6))
    assert {train_box(224, 300, limited, ClipConfig(short_side=224), rng) for _ in range(50)} == {Box(0, 0, 224, 300)}


def test_random_resized_boxes_have_the_given_areas_and_aspects():
    rng = np.random.default_rng(0)
    augmentation = AugmentationConfig(crop="random_resized", area_range=(0.1, 0.4), aspect_range=(0.5, 2.0))
    boxes = np.array([train_box(1000, 1000, augmentation, ClipConfig(), rng) for _ in range(2000)])
    areas, aspects = boxes[:, 2] * boxes[:, 3] / 1e6, boxes[:, 3] / boxes[:, 2]
    assert 0.099 < areas.min() < areas.max() < 0.401
    assert areas.mean() == pytest.approx(0.25, abs=0.01)
    assert np.log(aspects).mean() == pytest.approx(0, abs=0.03)
    assert aspects.min() < 0.52 < 1.95 < aspects.max()
    # Without a box that fits: the largest centered one.
    augmentation = AugmentationConfig(crop="random_resized", area_range=(0.9, 1.0), aspect_range=(0.75, 1.333))
    assert train_box(100, 3000, augmentation, ClipConfig(), rng) == Box(0, 1433, 100, 133)
    assert train_box(3000, 100, augmentation, ClipConfig(), rng) == Box(1433, 0, 133, 100)


def test_each_segment_gives_one_frame_and_every_frame_can_be_drawn():
    rng = np.random.default_rng(0)
    drawn = np.stack([random_segments(20, 8, rng) for _ in range(4000)])
    bounds = np.arange(9) * 2.5
    assert (drawn >= np.floor(bounds[:-1])).all()
    assert (drawn < np.ceil(bounds[1:])).all()
    counts = np.bincount(drawn.ravel(), minlength=20)
    assert (np.abs(counts / 4000 - 0.4) < 0.04).all()  # 8 frames of 20: every frame equally often, the last included
    assert (np.diff(drawn, axis=1) >= 0).all()
    # Segments of whole frames: TSN's rule in mmaction2 `SampleFrames(clip_len=1)` and VideoMAE.
    whole = np.stack([random_segments(64, 16, rng) for _ in range(300)])
    assert set((whole - np.arange(16) * 4).ravel().tolist()) == {0, 1, 2, 3}


def test_short_videos_repeat_frames_of_segments():
    assert random_segments(1, 4, np.random.default_rng(0)).tolist() == [0, 0, 0, 0]
    three = np.stack([random_segments(3, 8, np.random.default_rng(i)) for i in range(50)])
    assert set(three.ravel().tolist()) == {0, 1, 2}
    assert (np.diff(three, axis=1) >= 0).all()


def test_multi_scale_boxes_are_tsns():
    """mmaction2 `MultiScaleCrop(scales=(1, .875, .75, .66), max_wh_scale_gap=1)` with 13 fixed crops, on 256 x 340."""
    config, clip = AugmentationConfig(crop="multi_scale"), ClipConfig(short_side=256)
    rng = np.random.default_rng(0)
    boxes = {train_box(256, 340, config, clip, rng) for _ in range(4000)}
    sides = [256, 224, 192, 168]
    allowed = set()
    for i, height in enumerate(sides):
        for width in sides[max(i - 1, 0) : i + 2]:
            down, right = (256 - height) // 4, (340 - width) // 4
            corners = [(y, x) for y in (0, 2, 4) for x in (0, 2, 4)] + [(1, 1), (1, 3), (3, 1), (3, 3)]
            allowed |= {Box(y * down, x * right, height, width) for y, x in corners}
    assert boxes == allowed
