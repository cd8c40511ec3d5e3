"""Protocol `charades_localize`: windows around 25 time points of each video (`vidtl.metrics.charades_localize`)."""

import logging
from dataclasses import replace

import numpy as np

from vidtl.annotations.records import Records
from vidtl.config import ClipConfig, DataConfig
from vidtl.data.windows import Windows, centered_windows
from vidtl.errors import UserError
from vidtl.evaluation.evaluator import EvaluationResult
from vidtl.metrics.average_precision import Floats
from vidtl.metrics.charades_localize import NUM_POINTS, point_labels, point_times

_log = logging.getLogger(__name__)


def point_windows(records: Records, clip: ClipConfig, data: DataConfig) -> Windows:
    """Center a window on each time point, moved into its file; UserError for labels without times."""
    if not np.isfinite(records.label_ends_s).any():
        problem = "evaluation.protocol is 'charades_localize', which needs labels with times"
        raise UserError(f"{problem}; {records.annotation} has none; allowed: another protocol")
    return centered_windows(records, clip, data, lambda i, file_s: _times_s(records.select([i]), [file_s])[0])


def localize(result: EvaluationResult, records: Records, windows: Windows) -> EvaluationResult:
    """Turn the result of `windows` into that of their videos, with the best score of each class, and of the points."""
    windowed, shape = result.outcomes, (len(records), NUM_POINTS, len(records.classes))
    owners = np.repeat(np.arange(len(records)), np.diff(records.label_offsets))
    spans_s = np.stack([records.label_starts_s, records.label_ends_s], axis=1)
    times_NP = _times_s(records, windows.durations_s)
    labels = point_labels(times_NP, owners, records.label_classes, spans_s, shape[-1]).reshape(shape)
    points = windowed.scores.reshape(shape), labels
    chances, targets = np.fmax.reduce(windowed.probabilities.reshape(shape), axis=1), records.video_targets() > 0
    outcomes = replace(windowed, scores=points[0].max(axis=1), targets=targets, probabilities=chances, points=points)
    lost = dict(zip(windows.owners[~windowed.readable].tolist(), result.unreadable, strict=True))
    failed = [each._replace(id=records.ids[i]) for i, each in lost.items() if not outcomes.readable[i]]
    for point, _, reason in (each for i, each in lost.items() if outcomes.readable[i]):
        _log.warning("point %s, and perhaps earlier ones, has no scores and ranks last: %s", point, reason)
    result = replace(result, num_clips=NUM_POINTS, fusion="max", outcomes=outcomes, unreadable=failed)
    return replace(result, ids=list(records.ids), paths=list(records.paths))


def _times_s(records: Records, files_s: list[float]) -> Floats:
    """Return the points [N, P] in the annotated lengths, or else those of the files, 0 for unreadable ones."""
    annotated = np.full(len(records), np.nan) if records.lengths_s is None else records.lengths_s
    return point_times(np.where(np.isnan(annotated), files_s, annotated))
