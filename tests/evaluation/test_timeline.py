"""Cells against means moment by moment, and segments against the rules on made and random timelines."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from vidtl.evaluation.timeline import Segment, Timeline

NAMES = ("a", "b", "c")


def made(spans_s, chances, multi_label=False):
    return Timeline(
        path=Path("made.mp4"),
        class_names=NAMES,
        multi_label=multi_label,
        duration_s=10.0,
        failures={},
        spans_s=np.array(spans_s, float).reshape(-1, 2),
        probabilities=np.array(chances, float).reshape(-1, len(NAMES)),
    )


def drawn(seed, multi_label):
    """Windows on a grid, so that many overlap, touch, are equal or leave gaps, with few different probabilities."""
    rng = np.random.default_rng(seed)
    starts = np.sort(rng.integers(0, 30, 8)) / 4
    spans = np.stack([starts, starts + rng.integers(1, 8, 8) / 4], axis=1)
    return made(spans, rng.integers(0, 5, (8, 3)) / 4, multi_label)


@pytest.mark.parametrize("seed", range(20))
def test_each_moment_has_the_mean_of_the_windows_that_cover_it(seed):
    timeline = drawn(seed, multi_label=True)
    edges, chances_CK = timeline.cells()
    assert set(edges) == set(timeline.spans_s.ravel())
    for (start, end), chances_K in zip(pairwise(edges), chances_CK, strict=True):
        covering = [
            chances
            for (first, last), chances in zip(timeline.spans_s, timeline.probabilities, strict=True)
            if first < (start + end) / 2 < last
        ]
        expected = np.mean(covering, axis=0) if covering else np.full(3, np.nan)
        np.testing.assert_allclose(chances_K, expected, atol=1e-12)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_segments_are_the_moments_of_a_class(seed, multi_label):
    timeline = drawn(seed, multi_label)
    edges, chances_CK = timeline.cells()
    thresholds = np.array([0.3, 0.5, 0.7])
    segments = timeline.segments(thresholds)
    assert [segment.start_s for segment in segments] == sorted(segment.start_s for segment in segments)
    for k, name in enumerate(NAMES):
        own = [segment for segment in segments if segment.name == name]
        assert all(before.end_s < after.start_s for before, after in pairwise(own))
        for (start, end), chances_K in zip(pairwise(edges), chances_CK, strict=True):
            best = multi_label or (not np.isnan(chances_K[0]) and k == chances_K.argmax())
            inside = sum(segment.start_s <= start and end <= segment.end_s for segment in own)
            assert inside == (best and chances_K[k] >= thresholds[k])
    joined = timeline.segments(thresholds, gap_s=1.1)
    assert len(joined) <= len(segments)
    assert all(
        any(a.name == b.name and b.start_s <= a.start_s and a.end_s <= b.end_s for b in joined) for a in segments
    )
    if not multi_label:
        assert all(before.end_s <= after.start_s for before, after in pairwise(joined))


def test_without_a_threshold_each_covered_moment_has_its_best_class():
    timeline = made([(0, 1), (1, 2), (2, 4)], [(0.4, 0.3, 0.3), (0.3, 0.4, 0.3), (0.2, 0.4, 0.4)])
    assert timeline.segments() == [("a", 0, 1, 0.4), ("b", 1, 4, pytest.approx(0.4))]
    assert timeline.segments(0.41) == []


def test_a_segment_has_the_mean_over_its_covered_time():
    timeline = made([(0, 1), (1, 4), (5, 6)], [(0.9, 0, 0), (0.5, 0, 0), (0.8, 0, 0)], multi_label=True)
    assert timeline.segments() == [("a", 0, 4, pytest.approx(0.6)), ("a", 5, 6, 0.8)]
    assert timeline.segments(gap_s=1.0) == timeline.segments()
    assert timeline.segments(gap_s=1.1) == [Segment("a", 0, 6, pytest.approx(0.64))]


@pytest.mark.parametrize(("multi_label", "expected"), [(True, [("a", 0, 3), ("b", 1, 2)]), (False, None)])
def test_a_gap_with_another_class_stays_in_single_label_data(multi_label, expected):
    timeline = made([(0, 1), (1, 2), (2, 3)], [(0.9, 0, 0), (0, 0.9, 0), (0.9, 0, 0)], multi_label)
    found = [segment[:3] for segment in timeline.segments(gap_s=9)]
    assert found == (expected or [("a", 0, 1), ("b", 1, 2), ("a", 2, 3)])


@pytest.mark.parametrize("drift_s", [-0.0007, 1e-15, 0.0007])
def test_windows_touch_although_times_are_rounded(drift_s):
    timeline = made([(0, 1 + drift_s), (1, 2)], [(0.9, 0.1, 0), (0.1, 0.9, 0)])
    edges, chances_CK = timeline.cells()
    assert len(edges) == 3
    assert chances_CK.tolist() == timeline.probabilities.tolist()


def test_windows_of_a_fast_camera_are_told_apart_and_none_have_no_segments():
    timeline = made([(i / 1000, (i + 1) / 1000) for i in range(6)], np.eye(3)[[0, 0, 1, 1, 2, 2]])
    assert [segment.name for segment in timeline.segments()] == list(NAMES)
    timeline = made([], [])
    assert timeline.segments() == []
    assert [part.shape for part in timeline.cells()] == [(0,), (0, 3)]
