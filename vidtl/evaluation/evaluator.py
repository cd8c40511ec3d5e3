"""Evaluation of every annotated video exactly once, for any batch size, number of processes and interruptions.

Scores travel between processes as objects keyed by record number, as padded tensors would count some videos twice.
Axes: N videos, K classes.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import nn

from vidtl.annotations.records import Records
from vidtl.config import ClipConfig, EvaluationConfig
from vidtl.config.documents import parse_json
from vidtl.data.batch import VideoViews
from vidtl.data.protocols import Protocol
from vidtl.errors import UserError
from vidtl.evaluation.scoring import Scorer, Scores, output_layout, probabilities
from vidtl.metrics import Outcomes, compute_metrics
from vidtl.models.base import evaluation_mode
from vidtl.runtime.files import inside, user_error_if_not_written
from vidtl.runtime.launch import on_main_process, wait_for_everyone
from vidtl.runtime.progress import Progress

_log = logging.getLogger(__name__)

MakeLoader = Callable[[Sequence[int]], Iterable[VideoViews]]
"""Opens the views of records in the order given; `vidtl.data.loader.EvalLoader` with all but `indices` bound."""


class Unreadable(NamedTuple):
    """One annotated video without a score; it counts as wrong."""

    id: str
    path: str
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationResult:
    """Data, views and scores of one evaluation, from which every report is written; the same on every process."""

    annotation: str
    root: str
    protocol: str
    num_clips: int
    num_crops: int
    fusion: str
    max_videos: int
    """`evaluation.max_videos`: above 0, only so many of the first annotated videos were scored."""
    class_names: tuple[str, ...]
    ids: list[str]
    paths: list[str]
    """Relative to `root`; like `outcomes` in annotation order."""
    outcomes: Outcomes
    unreadable: list[Unreadable]
    shares: NDArray[np.float64]
    """Columns behind the tables of scores (`output_layout`), such as shares of views: float64 [N, columns]."""

    @property
    def num_scored(self) -> int:
        """Number of readable videos."""
        return len(self.ids) - len(self.unreadable)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Metrics of all annotated videos; unreadable ones are wrong."""
        return compute_metrics(self.outcomes)

    @cached_property
    def metrics_readable(self) -> dict[str, float]:
        """Metrics of the readable videos."""
        return compute_metrics(self.outcomes[self.outcomes.readable]) if self.unreadable else self.metrics


class ScoreStore:
    """Rows of finished batches on disk, with which an interrupted evaluation is continued.

    Each process of each launch appends to its `<folder>/<digest of the key>/<launch>-<process>.jsonl` one line per
    batch: the first record number and the rows. The key holds everything that decides a row. A line that a killed
    process left unfinished is ignored, and its batch is scored again.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], num_columns: int) -> None:
        """Choose the folder of a key (JSON values) among those of all keys; `num_columns` is the length of a row."""
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self.folder = inside(folder / digest[:16], folder.parent)
        self.num_columns = num_columns

    def read(self, batches: Sequence[range]) -> tuple[int, Scores]:
        """Return the number of this launch and the rows of earlier ones, each of `batches` at most once."""
        due, found = {batch.start: batch for batch in batches}, Scores()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            files = sorted(self.folder.glob("*.jsonl"))
            lines = [line for file in files for line in file.read_bytes().split(b"\n")]
        except OSError as error:
            raise UserError(f"{self.folder} could not be read or written: {error.strerror}") from error
        for first, rows in filter(None, map(self._parsed, lines)):
            if first in due and len(rows) == len(due[first]):
                found.update(Scores(dict(zip(due.pop(first), rows, strict=True))))
        return 1 + max((int(file.name.partition("-")[0]) for file in files), default=-1), found

    @contextmanager
    def writer(self, launch: int, process_index: int) -> Iterator[Callable[[Scores], None]]:
        """Open the file of one process; yield a function that appends a batch; UserError if another evaluation has it.

        A batch with an unreadable video is not written, since the disk or network may have been at fault.
        """
        path = self.folder / f"{launch:03d}-{process_index:04d}.jsonl"
        with user_error_if_not_written(path):
            file = path.open("xb", buffering=0)

        def append(batch: Scores) -> None:
            if batch.rows and not batch.failures:
                line = json.dumps([min(batch.rows), [row.tolist() for row in batch.rows.values()]]).encode() + b"\n"
                with user_error_if_not_written(path):
                    if file.write(line) < len(line):
                        raise OSError("only a part fitted on the disk")

        with file:
            yield append

    def remove(self) -> None:
        """Remove these rows, once the report is written; those of other keys stay and are logged."""
        shutil.rmtree(self.folder, ignore_errors=True)
        others = sorted(self.folder.parent.glob("*"))
        if not others and self.folder.parent.is_dir():
            self.folder.parent.rmdir()
        for other in others:
            _log.info("%s holds scores of another checkpoint or configuration; they were not used", other)

    def _parsed(self, line: bytes) -> tuple[int, list[NDArray[np.float64]]] | None:
        try:
            first, rows = parse_json(line, str(self.folder))
            table = np.array(rows, dtype=np.float64).reshape(-1, self.num_columns)
            return (int(first), list(table)) if len(table) == len(rows) else None
        except (UserError, ValueError, TypeError):
            return None


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
) -> list[EvaluationResult]:
    """Score all videos, and return a result for each table of scores; every process must call it.

    Args:
        model: maps input_BTCHW to logits_BK (or more, `output_layout`); used without its wrappers, in evaluation mode.
        make_loader: opens this process's share of `records`, all N videos, which are the same on every process.
        clip, evaluation, protocol, accelerator: shape of a view, batch size, views and fusion; device and precision.
        progress: shows the videos of this process; those of an interrupted evaluation count as done.
        store: receives finished batches, and holds those of an interrupted evaluation.

    UserError: nothing to evaluate, a single-label video without exactly one label, a model with another number of
    classes, scores that are not finite, or a store that cannot be written. RuntimeError: a bug.
    """
    targets_NK = _targets(records)
    scorer = Scorer(accelerator.unwrap_model(model), records, clip, evaluation, protocol, accelerator)
    with evaluation_mode(scorer.model):
        share = _score_share(scorer, make_loader, progress or Progress(visible=False), store)
    wait_for_everyone(accelerator)  # the durations of the shares differ by more than a collective would wait
    scores, ids, paths = Scores(), list(records.ids), list(records.paths)
    for part in gather_object([share]):
        scores.update(part)
    ends, num_columns = output_layout(scorer.model, len(records.classes))
    *tables_NK, shares = np.split(scores.table(len(records), num_columns), ends, axis=1)
    fusion, multi_label = scorer.fusion, records.multi_label
    return [
        EvaluationResult(
            annotation=str(records.annotation),
            root=str(records.root),
            protocol=protocol.name,
            num_clips=protocol.num_clips,
            num_crops=protocol.num_crops,
            fusion=fusion,
            max_videos=evaluation.max_videos,
            class_names=records.classes.names,
            ids=ids,
            paths=paths,
            outcomes=Outcomes(scores=scores_NK, targets=targets_NK, probabilities=chances_NK, multi_label=multi_label),
            unreadable=[Unreadable(ids[i], paths[i], reason) for i, reason in sorted(scores.failures.items())],
            shares=shares,
        )
        for scores_NK in tables_NK
        for chances_NK in [probabilities(scores_NK, fusion, multi_label)]
    ]


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
    pending, count = [batch for batch in batches if batch.start not in done], accelerator.num_processes
    share = pending[accelerator.process_index :: count]
    numbers = [number for batch in share for number in batch]
    title = f"evaluating, 1 of {count} processes" if count > 1 else "evaluating"
    writer = store.writer(launch, accelerator.process_index) if store else nullcontext(lambda batch: None)
    with progress.task(title, "videos", len(done) + len(numbers), len(done)) as task, writer as append:
        scored = scorer.score(make_loader(numbers), share, lambda finished: task.update(len(done) + finished))
        with closing(scored):
            for batch in scored:
                append(batch)
                found.update(batch)
    return found


def _targets(records: Records) -> NDArray[np.bool_]:
    """Return the labels [N, K] of all videos; UserError as in `evaluate`."""
    if len(records) == 0:
        raise UserError(f"{records.annotation} has no videos to evaluate")
    targets: NDArray[np.bool_] = records.video_targets() > 0
    wrong = np.flatnonzero(targets.sum(axis=1) != 1)
    if not records.multi_label and wrong.size:
        i = int(wrong[0])
        problem = f"video {records.ids[i]!r} has {int(targets[i].sum())} labels"
        raise UserError(f"{records.origin(i)}: {problem}; allowed: exactly 1 in single-label data")
    return targets
