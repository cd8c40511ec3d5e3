"""pytorchvideo's clip samplers as a source of frames, without the global state that they live from."""

import random
from fractions import Fraction

import numpy as np
import pytest
from pytorchvideo.data.clip_sampling import ClipSampler, make_clip_sampler

from vidtl.config import ClipConfig
from vidtl.data.clip_samplers import FRAME_RULES, frames_of_span, sampler_rule, sampler_spans
from vidtl.runtime.seeding import generator

CLIP = ClipConfig(num_frames=8, stride=2)
TIMES = np.arange(120) / 30  # 4 s at 30 frames per second

SAMPLERS = {
    "random": lambda: make_clip_sampler("random", 1.5),
    "random_multi": lambda: make_clip_sampler("random_multi", 1.5, 3),
    "uniform": lambda: make_clip_sampler("uniform", Fraction(3, 2)),
    "constant_clips_per_video": lambda: make_clip_sampler("constant_clips_per_video", 1.5, 5),
}


def spans_by_hand(sampler: ClipSampler, duration: float) -> list[tuple[float, float]]:
    """As pytorchvideo's own datasets ask: until a clip is the last."""
    spans, last_end, done = [], 0.0, False
    while not done:
        info = sampler(last_end, duration, {})
        spans.append((float(info.clip_start_sec), float(info.clip_end_sec)))
        last_end, done = info.clip_end_sec, info.is_last_clip
    return spans


@pytest.mark.parametrize("name", ["uniform", "constant_clips_per_video"])
def test_spans_are_the_samplers(name: str) -> None:
    sampler = SAMPLERS[name]()
    assert sampler_spans(sampler, 9.7) == spans_by_hand(SAMPLERS[name](), 9.7)
    assert sampler_spans(sampler, 1.0) == [(0.0, 1.5)] * (5 if name == "constant_clips_per_video" else 1)
    sampler(0.0, 9.7, {})  # in the middle of another video
    assert sampler_spans(sampler, 9.7) == spans_by_hand(SAMPLERS[name](), 9.7)


def test_random_spans_come_from_pythons_generator() -> None:
    random.seed(3)
    expected = [random.uniform(0, 8.2) for _ in range(3)]
    random.seed(3)
    assert [start for start, _ in sampler_spans(SAMPLERS["random_multi"](), 9.7)] == pytest.approx(expected)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_clip_depends_on_its_stream_alone(name: str) -> None:
    rule = sampler_rule(SAMPLERS[name]())
    first = [rule(TIMES, CLIP, generator(0, index)) for index in range(20)]
    random.seed(99)
    state = random.getstate()
    second = [rule(TIMES, CLIP, generator(0, index)) for index in reversed(range(20))][::-1]
    assert random.getstate() == state
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert len({tuple(indices) for indices in first}) > 1
    for indices in first:
        assert indices.shape == (8,)
        assert 0 <= indices.min() <= indices.max() < 120
        assert indices[-1] - indices[0] == 44  # the first and the last of 45 frames


def test_frames_of_a_span() -> None:
    assert frames_of_span(TIMES, 1.0, 2.0, 30).tolist() == list(range(30, 60))
    assert frames_of_span(TIMES, 1.0, 2.0, 4).tolist() == [30, 39, 49, 59]
    assert frames_of_span(TIMES, 3.9, 9.0, 6).tolist() == [117, 117, 117, 118, 118, 119]
    assert frames_of_span(TIMES, 1.01, 1.02, 3).tolist() == [30, 30, 30]  # between two frames: the one on screen
    assert frames_of_span(np.array([0.0]), 0.0, 2.0, 3).tolist() == [0, 0, 0]


def test_the_configured_rule_is_as_long_as_its_recipe_says() -> None:
    rule = FRAME_RULES["pytorchvideo_random"]
    clips = [rule(TIMES, CLIP, generator(0, index)) for index in range(300)]
    assert {int(indices[-1] - indices[0]) for indices in clips} <= {14, 15, 16}  # 8 x 2 frames of 30 per second
    # A span starts between two frames, so that the first frame is as good as never in one.
    assert {int(indices[0]) for indices in clips} >= set(range(10, 100, 10))
    at_15 = ClipConfig(num_frames=8, stride=2, target_fps=15)
    assert rule(np.arange(60) / 15, at_15, generator(0, 0)).max() < 60


def test_rules_take_any_video() -> None:
    for rule in FRAME_RULES.values():
        for count in (1, 2, 7, 500):
            indices = rule(np.arange(count) / 25, CLIP, generator(1, count))
            assert indices.shape == (8,)
            assert indices.dtype == np.int64
            assert 0 <= indices.min() <= indices.max() < count
