"""Evaluation of every annotated video exactly once, for any batch size and number of processes.

Axes: N videos, K classes.

Scores travel between processes as objects keyed by record number, because gathering tensors would need padding, and
padded videos are easily counted twice.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, nullcontext

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import nn

from vidtl.annotations.records import Records
from vidtl.config import ClipConfig, EvaluationConfig
from vidtl.data.batch import VideoViews
from vidtl.data.protocols import Protocol
from vidtl.errors import UserError
from vidtl.evaluation.fusion import probabilities
from vidtl.evaluation.result import EvaluationResult, Unreadable
from vidtl.evaluation.scoring import Scorer, Scores
from vidtl.evaluation.store import ScoreStore
from vidtl.metrics import Outcomes, compute_metrics
from vidtl.models.base import evaluation_mode
from vidtl.runtime.launch import on_main_process, wait_for_everyone
from vidtl.runtime.progress import Progress

_log = logging.getLogger(__name__)

MakeLoader = Callable[[Sequence[int]], Iterable[VideoViews]]
"""Record numbers to their videos' views, in that order; `vidtl.data.loader.EvalLoader` with all but `indices` bound."""


def evaluate(
    model: nn.Module,
    make_loader: MakeLoader,
    records: Records,
    clip: ClipConfig,
    evaluation: EvaluationConfig,
    protocol: Protocol,
    accelerator: Accelerator,
    progress: Progress | None = None,
    store: ScoreStore | None = None,
) -> EvaluationResult:
    """Score all videos and compute the metrics; every process must call it.

    Args:
        model: maps input_BTCHW to logits_BK; used without its wrappers, in evaluation mode.
        make_loader: opens this process's share of the videos.
        records: all N videos, the same on every process.
        clip: shape of a view.
        evaluation: batch size and fusion.
        protocol: views and their published fusion.
        accelerator: device, precision and processes.
        progress: shows the videos of this process; those of an interrupted evaluation count as done.
        store: receives finished batches, and holds those of an interrupted evaluation.

    Raises:
        UserError: nothing to evaluate, a single-label video without exactly one label, a model with another number of
            classes, scores that are not finite, or a store that cannot be written.
        RuntimeError: a video that was scored twice or not at all, or has the wrong number of views (a bug).
    """
    targets_NK = _targets(records)
    network = accelerator.unwrap_model(model)
    scorer = Scorer(network, records, clip, evaluation, protocol, accelerator)
    with evaluation_mode(network):
        share = _score_share(scorer, make_loader, progress or Progress(visible=False), store)
    wait_for_everyone(accelerator)  # shares take longer or shorter by more than a collective would wait
    scores = Scores()
    for part in gather_object([share]):
        scores.update(part)
    scores_NK = scores.table(len(records), len(records.classes))
    chances_NK = probabilities(scores_NK, scorer.fusion, records.multi_label)
    outcomes = Outcomes(
        scores=scores_NK, targets=targets_NK > 0, probabilities=chances_NK, multi_label=records.multi_label
    )
    metrics = compute_metrics(outcomes)
    ids, paths = list(records.ids), list(records.paths)
    return EvaluationResult(
        annotation=str(records.annotation),
        root=str(records.root),
        protocol=protocol.name,
        num_clips=protocol.num_clips,
        num_crops=protocol.num_crops,
        fusion=scorer.fusion,
        max_videos=evaluation.max_videos,
        class_names=records.classes.names,
        ids=ids,
        paths=paths,
        outcomes=outcomes,
        unreadable=[Unreadable(ids[i], paths[i], reason) for i, reason in sorted(scores.failures.items())],
        metrics=metrics,
        metrics_readable=compute_metrics(outcomes[outcomes.readable]) if scores.failures else metrics,
    )


def _score_share(scorer: Scorer, make_loader: MakeLoader, progress: Progress, store: ScoreStore | None) -> Scores:
    """Score this process's part of the batches left; the first process returns those of the store, too."""
    accelerator, batches, found = scorer.accelerator, scorer.batches(), Scores()

    def read() -> tuple[int, set[int]]:
        if store is None:
            return 0, set()
        launch, before = store.read(batches)
        found.update(before)
        return launch, before.numbers()

    launch, done = on_main_process(accelerator, read)
    if done:
        _log.info("%d of %d videos were scored before the interruption", len(done), len(scorer.records))
    pending = [batch for batch in batches if batch.start not in done]
    share = pending[accelerator.process_index :: accelerator.num_processes]
    numbers = [number for batch in share for number in batch]
    several = accelerator.num_processes > 1
    title = f"evaluating, 1 of {accelerator.num_processes} processes" if several else "evaluating"
    writer = store.writer(launch, accelerator.process_index) if store else nullcontext(_discard)
    with progress.task(title, "videos", len(done) + len(numbers), len(done)) as task, writer as append:
        scored = scorer.score(make_loader(numbers), share, lambda finished: task.update(len(done) + finished))
        with closing(scored):
            for batch in scored:
                append(batch)
                found.update(batch)
    return found


def _discard(batch: Scores) -> None:
    pass


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
