"""Labels of time points from records equal those of the official CSV; results of windows become those of videos."""

from dataclasses import replace

import numpy as np
import pytest
from charades_submission import read_annotations

from tests.annotations.sets import read, write
from tests.evaluation.made_result import made_result
from tests.refusals import refused
from vidtl.annotations.records import Records
from vidtl.config import ClipConfig, DataConfig
from vidtl.data.protocols import LOCALIZATION, get_protocol
from vidtl.data.windows import Windows
from vidtl.evaluation.localize import localize, point_windows
from vidtl.metrics import compute_metrics
from vidtl.metrics.charades_localize import point_labels, point_times

NUM_VIDEOS = 60


def time_near_points(rng: np.random.Generator, length: float) -> str:
    """Two decimals, half of them those of points, some outside the video."""
    return f"{rng.integers(0, 30) / 25 * length if rng.random() < 0.5 else rng.uniform(0, 1.3 * length):.2f}"


@pytest.fixture(scope="module")
def charades(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """Ends before starts, empty and repeated segments, times outside the video, and videos without actions."""
    root, rng = tmp_path_factory.mktemp("charades"), np.random.default_rng(0)
    lines = ["id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length"]
    for i in range(NUM_VIDEOS):
        length = rng.integers(4, 160) / 4  # the times of many points have two decimals
        spans = [(time_near_points(rng, length), time_near_points(rng, length)) for _ in range(24)]
        spans += [(start, start) for start, _ in spans[:6]]
        actions = ";".join(f"c{rng.integers(157):03d} {start} {end}" for start, end in spans if i % 20)
        lines.append(f"V{i:03d},,,,,,,,,{actions},{length:.2f}")
    classes = "".join(f"c{k:03d} class {k}\n" for k in range(157))
    write(root, {"Charades_v1_classes.txt": classes, "Charades_v1_test.csv": "\n".join(lines)})
    return read("charades", "val", root)


@pytest.fixture(scope="module")
def official(charades: Records) -> np.ndarray:
    ids, *labels, lengths_s = read_annotations(charades.annotation, 157, timed=True)
    assert ids == list(charades.ids)
    return point_labels(point_times(lengths_s), *labels, num_classes=157).reshape(NUM_VIDEOS, 25, 157)


def localized(records: Records, lost: tuple[int, ...] = (), durations_s: float = 0.0):
    """Random scores of the windows of records, without those of `lost` rows."""
    owners = np.repeat(np.arange(len(records)), 25)
    result = made_result(len(owners), records.classes.names, multi_label=True, unreadable=lost)
    spans_s, files_s = np.zeros((len(owners), 2)), [durations_s] * len(records)
    windows = Windows(records=records.select(owners), owners=owners, spans_s=spans_s, durations_s=files_s, failures={})
    return result, localize(result, records, windows)


def test_records_hold_the_official_labels(charades: Records, official: np.ndarray) -> None:
    """Clipping to the length, and an end before its start, change no label of a point."""
    _, result = localized(charades)
    np.testing.assert_array_equal(result.outcomes.points[1], official)
    moved, inverted = (charades.label_ends_s + 1e-9, charades.label_ends_s < charades.label_starts_s)
    assert inverted.any()
    _, wrong = localized(replace(charades, label_ends_s=np.where(inverted, charades.label_starts_s, moved)))
    assert (wrong.outcomes.points[1] != official).any()
    assert (localized(charades.select([5, 2]))[1].outcomes.points[1] == official[[5, 2]]).all()


def test_videos_without_a_length_last_as_long_as_their_files(charades: Records, official: np.ndarray) -> None:
    lengths_s = charades.lengths_s.copy()
    lengths_s[7] = np.nan
    for records in (replace(charades, lengths_s=lengths_s), replace(charades, lengths_s=None)):
        _, result = localized(records, durations_s=float(charades.lengths_s[7]))
        np.testing.assert_array_equal(result.outcomes.points[1][7], official[7])


def test_windows_become_videos(charades: Records, caplog: pytest.LogCaptureFixture) -> None:
    """A video has its best score of each class, and is unreadable only without any window."""
    lost = (*range(75, 100), 130, 140)
    windowed, result = localized(charades, lost)
    scores = windowed.outcomes.scores.reshape(NUM_VIDEOS, 25, 157)
    np.testing.assert_array_equal(result.outcomes.scores, scores.max(axis=1))
    assert [(each.id, each.reason) for each in result.unreadable] == [("V003", "moov atom not found")]
    assert (result.num_scored, result.num_clips, result.fusion, result.ids) == (59, 25, "max", list(charades.ids))
    assert np.isnan(result.outcomes.probabilities[3]).all()
    assert np.isfinite(np.delete(result.outcomes.probabilities, 3, axis=0)).all()
    assert "video 140" in caplog.text
    readable = compute_metrics(result.outcomes[result.outcomes.readable])
    assert readable == result.metrics_readable
    rest = localized(charades.select([i for i in range(NUM_VIDEOS) if i != 3]))[1].outcomes.points[1]
    np.testing.assert_array_equal(result.outcomes[result.outcomes.readable].points[1], rest)


def test_where_the_protocol_is_refused(charades: Records) -> None:
    assert get_protocol("charades_localize", LOCALIZATION) is LOCALIZATION
    with refused("evaluation.protocol", "'charades_localise'", "'charades_localize'"):
        get_protocol("charades_localise", LOCALIZATION)
    with refused("evaluation.protocol", "'charades_localize'"):
        get_protocol("charades_localize")
    whole = replace(charades, label_ends_s=np.full_like(charades.label_ends_s, np.inf))
    with refused("'charades_localize'", "Charades_v1_test.csv"):
        point_windows(whole, ClipConfig(), DataConfig())
