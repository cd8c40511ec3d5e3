"""Every annotated video exactly once, whatever the batch size and the number of processes.

Axes: N videos, V views of one video, K classes.

Videos are scored in fixed groups that share micro-batches (see `vidtl.evaluation.batching`), so that neither the number
of processes nor an interruption changes a bit. Scores travel between processes as objects keyed by record number,
because gathering tensors would need padding, and padded videos are counted twice sooner or later.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import nn

from vidtl.config import ExperimentConfig
from vidtl.data.batch import VideoViews
from vidtl.data.protocols import Protocol
from vidtl.data.records import Records
from vidtl.errors import UserError
from vidtl.evaluation.batching import video_groups
from vidtl.evaluation.fusion import probabilities
from vidtl.evaluation.partial import PartialResults
from vidtl.evaluation.result import EvaluationResult, Unreadable
from vidtl.evaluation.scoring import Scorer, Shard
from vidtl.metrics.calibration import calibration
from vidtl.metrics.charades import official_scores
from vidtl.metrics.classification import compute_metrics, unreadable_rows
from vidtl.runtime.launch import on_main_process, wait_for_everyone
from vidtl.runtime.progress import Progress

__all__ = ["EvaluationResult", "Unreadable", "evaluate"]

_log = logging.getLogger(__name__)

MakeLoader = Callable[[Sequence[int]], Iterable[VideoViews]]
"""Record numbers to their videos' views, in that order; `vidtl.data.loader.EvalLoader` with all but `indices` bound."""


def evaluate(
    model: nn.Module,
    make_loader: MakeLoader,
    records: Records,
    config: ExperimentConfig,
    protocol: Protocol,
    accelerator: Accelerator,
    progress: Progress | None = None,
    partial: PartialResults | None = None,
) -> EvaluationResult:
    """Score and judge all videos; every process must call it.

    Args:
        model: maps input_BTCHW to logits_BK; used without its wrappers, in evaluation mode, which is undone afterwards.
        make_loader: opens this process's share of the videos.
        records: all N videos, the same on every process.
        config: its `clip` and `evaluation` sections are used.
        protocol: views and their published fusion.
        accelerator: device, precision and processes.
        progress: told the videos of this process; those of an interrupted evaluation count as done.
        partial: where results are kept as they come, and scores of an interrupted evaluation are taken from.

    Raises:
        UserError: nothing to evaluate, a single-label video without exactly one label, a model with another number of
            classes, scores that are not finite, or partial results that cannot be written.
        RuntimeError: a video that was scored twice or not at all, or has the wrong number of views (a bug of ours).
    """
    targets_NK = _targets(records)
    fusion = protocol.fusion if config.evaluation.fusion == "protocol" else config.evaluation.fusion
    scorer = Scorer(accelerator.unwrap_model(model), records, config, protocol, fusion, accelerator)
    share = _score_share(scorer, make_loader, progress or Progress(visible=False), partial)
    wait_for_everyone(accelerator)  # shares take longer or shorter by more than a collective would wait
    shards = gather_object([share])
    scores_NK, failures = _merge(shards, records)
    readable = ~unreadable_rows(scores_NK)
    ids, paths = list(records.ids), list(records.paths)
    metrics = all_metrics(scores_NK, targets_NK, fusion, records.multi_label, records.classes.names)
    metrics_readable = dict(metrics)
    if failures:
        of_readable = scores_NK[readable], targets_NK[readable]
        metrics_readable = all_metrics(*of_readable, fusion, records.multi_label, records.classes.names)
    return EvaluationResult(
        annotation=str(records.annotation),
        root=str(records.root),
        protocol=protocol.name,
        num_clips=protocol.num_clips,
        num_crops=protocol.num_crops,
        fusion=fusion,
        multi_label=records.multi_label,
        max_videos=config.evaluation.max_videos,
        num_annotated=len(records),
        num_scored=int(readable.sum()),
        unreadable=[Unreadable(ids[index], paths[index], reason) for index, reason in failures],
        metrics=metrics,
        metrics_readable=metrics_readable,
        class_names=records.classes.names,
        ids=ids,
        paths=paths,
        scores=scores_NK,
        targets=targets_NK,
    )


def all_metrics(
    scores_NK: NDArray[np.float64],
    targets_NK: NDArray[Any],
    fusion: str,
    multi_label: bool,
    class_names: Sequence[str],
) -> dict[str, float]:
    """`compute_metrics`, the calibration error, and for multi-label data the official Charades figures."""
    metrics = compute_metrics(scores_NK, targets_NK, multi_label, class_names)
    if multi_label:
        official = official_scores(scores_NK, targets_NK)
        metrics |= {"mAP_charades": official.mean_ap, "mAP_charades_weighted": official.weighted_ap}
    return metrics | {"ece": calibration(probabilities(scores_NK, fusion, multi_label), targets_NK, multi_label).ece}


def _score_share(scorer: Scorer, make_loader: MakeLoader, progress: Progress, partial: PartialResults | None) -> Shard:
    """This process's part of what is left to do; in the first process, also what was done before."""
    config, accelerator = scorer.config, scorer.accelerator
    num_views = scorer.protocol.num_clips * scorer.protocol.num_crops
    groups = video_groups(len(scorer.records), num_views, config.evaluation.batch_size)
    before = Shard()

    def load() -> tuple[int, set[int]]:
        if partial is None:
            return 0, set()
        launch, found = partial.load(groups)
        before.extend(found)
        return launch, set(found.indices)

    launch, done = on_main_process(accelerator, load)
    if done:
        _log.info("%d of %d videos were scored before the interruption and are not repeated",
                  len(done), len(scorer.records))  # fmt: skip
    pending = [group for group in groups if group.start not in done]
    share = pending[accelerator.process_index :: accelerator.num_processes]
    indices = [index for group in share for index in group]
    title = (
        "evaluating" if accelerator.num_processes == 1 else f"evaluating, 1 of {accelerator.num_processes} processes"
    )
    with ExitStack() as stack:
        task = stack.enter_context(progress.task(title, "videos", len(done) + len(indices), len(done)))
        writer = stack.enter_context(partial.writer(launch, accelerator.process_index)) if partial else None
        found = Shard()
        shards = scorer.score(make_loader(indices), share, lambda finished: task.update(len(done) + finished))
        for group, shard in zip(share, stack.enter_context(closing(shards)), strict=True):
            if writer:
                writer.add(group, shard)
            found.extend(shard)
    found.extend(before)
    return found


def _targets(records: Records) -> NDArray[np.float32]:
    if len(records) == 0:
        raise UserError(f"{records.annotation} has no videos to evaluate")
    targets = records.video_targets()
    wrong = np.flatnonzero(targets.sum(axis=1) != 1)
    if not records.multi_label and wrong.size:
        i = int(wrong[0])
        raise UserError(
            f"{records.origin(i)}: video {records.ids[i]!r} has {int(targets[i].sum())} labels; "
            "allowed: exactly 1 in single-label data"
        )
    return targets


def _merge(shards: list[Shard], records: Records) -> tuple[NDArray[np.float64], list[tuple[int, str]]]:
    """Scores [N, K] of all processes in annotation order and (index, reason) of failures, each video exactly once."""
    scored = [index for shard in shards for index in shard.indices]
    failures = sorted(failure for shard in shards for failure in shard.failures)
    counts = np.bincount([*scored, *(index for index, _ in failures)], minlength=len(records))
    wrong = np.flatnonzero(counts != 1)
    if wrong.size:
        raise RuntimeError(
            f"of {len(records)} videos {int((counts == 0).sum())} were not scored and {int((counts > 1).sum())} "
            f"more than once, for example record {wrong[0]}"
        )
    scores = np.full((len(records), len(records.classes)), -np.inf)
    for shard in shards:
        for index, row in zip(shard.indices, shard.scores, strict=True):
            scores[index] = row
    return scores, failures
