"""Every annotated video exactly once, whatever the batch size and the number of processes.

Axes: N videos, V views of one video, B clips of one micro-batch, T frames, K classes.

Each process scores the videos its loader gives it. Views of neighbouring videos share micro-batches, so that protocols
with few views still fill the device; the logits of a video are fused once all its views are through, in view order.
Scores travel between processes as objects keyed by record number, because gathering tensors would need padding, and
padded videos are counted twice sooner or later.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import nn

from vidtl.config import ExperimentConfig
from vidtl.data.batch import VideoViews
from vidtl.data.pixels import prepare_input
from vidtl.data.protocols import Protocol
from vidtl.data.records import Records
from vidtl.errors import UserError
from vidtl.evaluation.charades import official_scores
from vidtl.evaluation.metrics import compute_metrics, unreadable_rows
from vidtl.evaluation.views import fuse


class Unreadable(NamedTuple):
    """One annotated video without a score; it counts as wrong."""

    id: str
    path: str
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationResult:
    """One evaluation: what was asked, what could be read, the scores and the metrics. The same on every process."""

    annotation: str
    protocol: str
    num_clips: int
    num_crops: int
    fusion: str
    multi_label: bool
    max_videos: int
    """`evaluation.max_videos`: above 0, only so many of the first annotated videos were asked for."""
    num_annotated: int
    num_scored: int
    unreadable: list[Unreadable]
    metrics: dict[str, float]
    """Over all annotated videos; unreadable ones are wrong."""
    metrics_readable: dict[str, float]
    """Over the videos that could be read."""
    class_names: tuple[str, ...]
    ids: list[str]
    paths: list[str]
    scores: NDArray[np.float64]
    """[N, K] in annotation order; rows of -inf are unreadable videos."""
    targets: NDArray[np.float32]
    """[N, K] of 0 and 1."""


def evaluate(
    model: nn.Module,
    loader: Iterable[VideoViews],
    records: Records,
    config: ExperimentConfig,
    protocol: Protocol,
    accelerator: Accelerator,
    on_video: Callable[[int], None] | None = None,
) -> EvaluationResult:
    """Score and judge all videos; every process must call it.

    Args:
        model: maps input_BTCHW to logits_BK; used without its wrappers, in evaluation mode, which is undone afterwards.
        loader: this process's share of the videos; `vidtl.data.loader.EvalLoader`.
        records: all N videos, the same on every process.
        config: its `clip` and `evaluation` sections are used.
        protocol: views and their published fusion.
        accelerator: device, precision and processes.
        on_video: called after each video of this process with the number of its videos finished so far.

    Raises:
        UserError: nothing to evaluate, a single-label video without exactly one label, a model with another number of
            classes, or scores that are not finite.
        RuntimeError: a video that was scored twice or not at all, or has the wrong number of views (a bug of ours).
    """
    targets_NK = _targets(records)
    fusion = protocol.fusion if config.evaluation.fusion == "protocol" else config.evaluation.fusion
    scorer = _Scorer(accelerator.unwrap_model(model), records, config, protocol, fusion, accelerator)
    shards = gather_object([scorer.score(loader, on_video)])
    scores_NK, failures = _merge(shards, records)
    readable = ~unreadable_rows(scores_NK)
    ids, paths = list(records.ids), list(records.paths)
    metrics = _metrics(scores_NK, targets_NK, records)
    return EvaluationResult(
        annotation=str(records.annotation),
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
        metrics_readable=_metrics(scores_NK[readable], targets_NK[readable], records) if failures else dict(metrics),
        class_names=records.classes.names,
        ids=ids,
        paths=paths,
        scores=scores_NK,
        targets=targets_NK,
    )


@dataclass(frozen=True)
class Piece:
    """Some or all views of one video, as they share a micro-batch with others."""

    index: int
    colour: int
    pixels: NDArray[np.uint8]


def pack(videos: Iterable[tuple[int, int, NDArray[np.uint8]]], batch_size: int) -> Iterator[list[Piece]]:
    """Cut videos of (index, colour, pixels [V, T, ...]) into micro-batches of exactly `batch_size` clips but the last.

    Views keep their order; no clip is held longer than until its micro-batch is full.
    """
    pieces: list[Piece] = []
    room = batch_size
    for index, colour, pixels in videos:
        start = 0
        while start < len(pixels):
            piece = Piece(index, colour, pixels[start : start + room])
            pieces.append(piece)
            start += len(piece.pixels)
            room -= len(piece.pixels)
            if room == 0:
                yield pieces
                pieces, room = [], batch_size
    if pieces:
        yield pieces


@dataclass
class _Shard:
    """What one process found out."""

    indices: list[int] = field(default_factory=list)
    scores: list[NDArray[np.float64]] = field(default_factory=list)
    failures: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Scorer:
    """Forward passes and fusion of one process."""

    model: nn.Module
    records: Records
    config: ExperimentConfig
    protocol: Protocol
    fusion: str
    accelerator: Accelerator

    def score(self, loader: Iterable[VideoViews], on_video: Callable[[int], None] | None) -> _Shard:
        """Scores and failures of the loader's videos; restores each module's training flag."""
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            with torch.inference_mode():
                return self._score(loader, on_video or (lambda done: None))
        finally:
            for module, training in modes:
                module.training = training

    def _score(self, loader: Iterable[VideoViews], on_video: Callable[[int], None]) -> _Shard:
        shard = _Shard()
        waiting: dict[int, list[NDArray[np.float64]]] = {}
        num_views = self.protocol.num_clips * self.protocol.num_crops
        for pieces in pack(self._readable(loader, shard, on_video), self.config.evaluation.batch_size):
            logits_BK = self._forward(pieces)
            ends = np.cumsum([len(piece.pixels) for piece in pieces])
            for piece, logits_vK in zip(pieces, np.split(logits_BK, ends[:-1]), strict=True):
                views = waiting.setdefault(piece.index, [])
                views.extend(logits_vK)
                if len(views) == num_views:
                    shard.indices.append(piece.index)
                    shard.scores.append(fuse(waiting.pop(piece.index), self.fusion, self.records.multi_label))
                    on_video(len(shard.indices) + len(shard.failures))
        return shard

    def _readable(
        self, loader: Iterable[VideoViews], shard: _Shard, on_video: Callable[[int], None]
    ) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
        num_views = self.protocol.num_clips * self.protocol.num_crops
        for video in loader:
            if video.pixels is None:
                shard.failures.append((video.index, video.failure.reason if video.failure else "no reason given"))
                on_video(len(shard.indices) + len(shard.failures))
            elif len(video.pixels) != num_views:
                raise RuntimeError(f"{self.records.ids[video.index]!r} has {len(video.pixels)} views, not {num_views}")
            else:
                yield video.index, video.colour, video.pixels

    def _forward(self, pieces: list[Piece]) -> NDArray[np.float64]:
        device = self.accelerator.device
        pixels = torch.from_numpy(np.concatenate([piece.pixels for piece in pieces]))
        colour = torch.tensor([piece.colour for piece in pieces for _ in piece.pixels])
        input_BTCHW = prepare_input(pixels.to(device), colour.to(device), self.config.clip)
        with self.accelerator.autocast():
            logits_BK = self.model(input_BTCHW)
        num_classes = len(self.records.classes)
        if logits_BK.shape != (len(pixels), num_classes):
            raise UserError(
                f"the model gives {logits_BK.shape[-1]} scores per clip, "
                f"but {self.records.annotation} has {num_classes} classes"
            )
        logits: NDArray[np.float64] = logits_BK.cpu().double().numpy()
        return logits


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


def _merge(shards: list[_Shard], records: Records) -> tuple[NDArray[np.float64], list[tuple[int, str]]]:
    """Scores [N, K] of all processes in annotation order and (index, reason) of failures, each video exactly once."""
    scored = [index for shard in shards for index in shard.indices]
    failures = sorted(failure for shard in shards for failure in shard.failures)
    counts = np.bincount([*scored, *(index for index, _ in failures)], minlength=len(records))
    wrong = np.flatnonzero(counts != 1)
    if wrong.size or len(counts) != len(records):
        example = records.ids[wrong[0]] if wrong.size and wrong[0] < len(records) else f"record {len(counts) - 1}"
        raise RuntimeError(
            f"of {len(records)} videos {int((counts == 0).sum())} were not scored and {int((counts > 1).sum())} "
            f"more than once, for example {example!r}"
        )
    scores = np.full((len(records), len(records.classes)), -np.inf)
    for shard in shards:
        for index, row in zip(shard.indices, shard.scores, strict=True):
            if not np.isfinite(row).all():
                raise UserError(
                    f"the model's scores for video {records.ids[index]!r} ({records.path(index)}) are not finite; "
                    "its weights or the precision (training.precision) cannot be used"
                )
            scores[index] = row
    return scores, failures


def _metrics(scores_NK: NDArray[np.float64], targets_NK: NDArray[Any], records: Records) -> dict[str, float]:
    metrics = compute_metrics(scores_NK, targets_NK, records.multi_label, records.classes.names)
    if records.multi_label:
        official = official_scores(scores_NK, targets_NK)
        metrics |= {"mAP_charades": official.mean_ap, "mAP_charades_weighted": official.weighted_ap}
    return metrics
