"""Classes over the time of whole files, from sliding windows. Axes: W windows, C cells of time, K classes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from vidtl.annotations.video_files import VideoFile, records_by_kind, split_refused
from vidtl.data.protocols import get_protocol
from vidtl.data.windows import Hop, sliding_windows
from vidtl.errors import UserError
from vidtl.evaluation.predict import Prediction, PredictionSettings, calibrated, predict_records
from vidtl.models import VideoModel
from vidtl.runtime.launch import make_accelerator
from vidtl.runtime.progress import Progress


class Segment(NamedTuple):
    """Part of a file that shows one class, with its mean probability over the time that windows cover."""

    name: str
    start_s: float
    end_s: float
    probability: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Timeline:
    """Probabilities of windows of one file, in seconds from its start; duration 0 if it cannot be opened."""

    path: Path
    class_names: tuple[str, ...]
    multi_label: bool
    duration_s: float
    spans_s: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    """float64 [W, 2] and [W, K]: start and end of each window that was read, by rising starts, and its classes."""
    failures: dict[float, str]
    """Reason for each window that could not be read, by its start."""

    def cells(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Cut time at the starts and ends of windows, of which those within 2 ms are one.

        Return rising edges float64 [C + 1], and float64 [C, K]: the mean of all windows there, NaN where none is.
        """
        tolerance_s = min(0.002, np.diff(self.spans_s).min(initial=1) / 4)  # many files store whole milliseconds
        edges: list[float] = []
        for time_s in np.unique(self.spans_s).tolist():
            if not edges or time_s - edges[-1] > tolerance_s:
                edges.append(time_s)
        limits = np.searchsorted(edges, self.spans_s, side="right") - 1
        sums = np.zeros((max(len(edges) - 1, 0), len(self.class_names) + 1))  # the last column counts windows
        for (first, last), chances_K in zip(limits.tolist(), self.probabilities, strict=True):
            sums[first:last] += np.append(chances_K, 1)
        return np.array(edges), sums[:, :-1] / np.where(sums[:, -1:], sums[:, -1:], np.nan)

    def segments(self, threshold: float | NDArray[np.float64] | None = None, gap_s: float = 0.0) -> list[Segment]:
        """Join successive cells of a class to segments, by rising starts.

        A cell has each class of at least the probability `threshold`, one or [K], by default 0.5; with single labels
        only its best class (of equal ones the first), by default 0. Segments of a class that are less than `gap_s`
        apart become one; with single labels they stay two if another class lies between, so that none overlap.
        """
        edges, chances_CK = self.cells()
        shown_CK = chances_CK >= ((0.5 if self.multi_label else 0.0) if threshold is None else threshold)
        if not self.multi_label:
            shown_CK &= chances_CK.argmax(axis=1)[:, None] == np.arange(len(self.class_names))
        shown_before = np.append(0, np.cumsum(shown_CK.any(axis=1)))
        found: list[Segment] = []
        for k in np.flatnonzero(shown_CK.any(axis=0)).tolist():
            firsts, lasts = np.flatnonzero(np.diff(shown_CK[:, k], prepend=False, append=False)).reshape(-1, 2).T
            joined = edges[firsts[1:]] - edges[lasts[:-1]] < gap_s
            joined &= self.multi_label | (shown_before[firsts[1:]] == shown_before[lasts[:-1]])
            limits = np.stack([firsts[np.append(True, ~joined)], lasts[np.append(~joined, True)]], axis=1)
            seen_s = np.append(np.diff(edges) * ~np.isnan(chances_CK[:, k]), 0)
            weighted = np.append(np.nan_to_num(chances_CK[:, k]), 0) * seen_s
            sums, times_s = np.add.reduceat([weighted, seen_s], limits.ravel(), axis=1)[:, ::2]
            times = zip(edges[limits].tolist(), (sums / times_s).tolist(), strict=True)
            found += [Segment(self.class_names[k], start_s, end_s, mean) for (start_s, end_s), mean in times]
        return sorted(found, key=lambda segment: segment.start_s)


def predict_timelines(
    model: VideoModel,
    videos: Sequence[VideoFile],
    hop: Hop | None = None,
    settings: PredictionSettings | None = None,
    accelerator: Accelerator | None = None,
    progress: Progress | None = None,
    on_window: Callable[[float, float, Prediction], None] = lambda start_s, end_s, prediction: None,
) -> Iterator[Timeline]:
    """Score windows a `hop` apart (None: half a window), and yield the timeline of each file once it is complete.

    Order, arguments and errors are those of `vidtl.evaluation.predict.predict`, but a file that it refuses unopened is
    a UserError. `on_window` gets start, end and scores of every window. Only the scores of one file are in memory.
    """
    settings = settings or PredictionSettings()
    config, classes, multi_label = settings.resolved(model)
    accelerator, center = accelerator or make_accelerator(config.training.precision), get_protocol("center")
    hop = hop or Hop(frames=max(1, config.clip.num_frames * config.clip.stride // 2))
    for video, reason in split_refused(videos, settings.frame_rate)[1]:
        raise UserError(f"{video.path}: {reason}")
    network = settings.network or model
    for of_kind, records, data in records_by_kind(videos, config.data, settings.frame_rate, classes, multi_label):
        windows = sliding_windows(records, config.clip, data, hop)
        reading = replace(config, data=replace(data, num_workers=min(config.data.num_workers, len(windows.records))))
        scored = predict_records(network, windows.records, reading, center, accelerator, windows.failures)
        numbered = enumerate(zip(windows.spans_s.tolist(), scored, strict=True), start=1)
        with (progress or Progress(visible=False)).task("predicting", "windows", len(windows.records)) as task:
            for video, count, duration_s in zip(of_kind, np.bincount(windows.owners), windows.durations_s, strict=True):
                of_video: list[tuple[float, float, Prediction]] = []
                for done, (span_s, each) in islice(numbered, count):
                    each = replace(calibrated(each, settings.calibration, multi_label), path=video.path)
                    of_video.append((*span_s, each))
                    on_window(*of_video[-1])
                    task.update(done)
                read = [window for window in of_video if not window[2].reason]
                yield Timeline(
                    path=video.path, class_names=classes.names, multi_label=multi_label, duration_s=duration_s,
                    spans_s=np.array([window[:2] for window in read]).reshape(-1, 2),
                    probabilities=np.array([window[2].probabilities for window in read]).reshape(-1, len(classes)),
                    failures={start_s: each.reason for start_s, _, each in of_video if each.reason},
                )  # fmt: skip
