"""Forward passes and fusion of one process.

Axes: V views of one video, B clips of one micro-batch, T frames, K classes.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from vidtl.config import ExperimentConfig
from vidtl.data.batch import VideoViews
from vidtl.data.pixels import prepare_input
from vidtl.data.protocols import Protocol
from vidtl.data.records import Records
from vidtl.errors import UserError
from vidtl.evaluation.fusion import fuse


@dataclass(frozen=True)
class Piece:
    """Some or all views of one video, as they share a micro-batch with others."""

    index: int
    color: int
    pixels: Tensor


def pack(videos: Iterable[tuple[int, int, Tensor]], batch_size: int) -> Iterator[list[Piece]]:
    """Cut videos of (index, color, pixels [V, T, ...]) into micro-batches of exactly `batch_size` clips but the last.

    Views keep their order; no clip is held longer than until its micro-batch is full.
    """
    pieces: list[Piece] = []
    room = batch_size
    for index, color, pixels in videos:
        start = 0
        while start < len(pixels):
            piece = Piece(index, color, pixels[start : start + room])
            pieces.append(piece)
            start += len(piece.pixels)
            room -= len(piece.pixels)
            if room == 0:
                yield pieces
                pieces, room = [], batch_size
    if pieces:
        yield pieces


@dataclass
class Shard:
    """What was found out about some videos."""

    indices: list[int] = field(default_factory=list)
    scores: list[NDArray[np.float64]] = field(default_factory=list)
    """float64 [K] for each of `indices`."""
    failures: list[tuple[int, str]] = field(default_factory=list)
    """Record number and reason of the videos that could not be read."""

    def __len__(self) -> int:
        return len(self.indices) + len(self.failures)

    def extend(self, other: "Shard") -> None:
        """Add what another shard found."""
        self.indices += other.indices
        self.scores += other.scores
        self.failures += other.failures


@dataclass(frozen=True)
class Scorer:
    """The model, and how the views of a video become one score per class."""

    model: nn.Module
    records: Records
    config: ExperimentConfig
    protocol: Protocol
    fusion: str
    accelerator: Accelerator

    def score(
        self, videos: Iterable[VideoViews], groups: Iterable[range], on_video: Callable[[int], None]
    ) -> Generator[Shard, None, None]:
        """One shard per group; `videos` must hold the groups' videos in order, each once, and no others.

        The model is in evaluation mode while this iterates; each module's training flag is restored at the end.

        Args:
            on_video: called after each video with the number of videos finished so far.

        Raises:
            UserError: a model with another number of classes, or scores that are not finite.
            RuntimeError: a video that was not due, or has the wrong number of views (a bug of ours).
        """
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            iterator, finished = iter(videos), 0
            for group in groups:
                shard = Shard()
                with torch.inference_mode():
                    self._score(self._due(iterator, group), shard, partial(_shifted, on_video, finished))
                finished += len(shard)
                yield shard
            for video in iterator:
                raise RuntimeError(f"record {video.index} came after all that were due")
        finally:
            for module, training in modes:
                module.training = training

    def _due(self, videos: Iterator[VideoViews], group: range) -> Iterator[VideoViews]:
        expected = iter(group)
        for video, index in zip(islice(videos, len(group)), expected, strict=False):
            if video.index != index:
                raise RuntimeError(f"record {video.index} came where {index} ({self.records.ids[index]!r}) was due")
            yield video
        for index in expected:
            raise RuntimeError(f"the loader ended where record {index} ({self.records.ids[index]!r}) was due")

    def _score(self, videos: Iterator[VideoViews], shard: Shard, on_video: Callable[[int], None]) -> None:
        waiting: dict[int, list[NDArray[np.float64]]] = {}
        num_views = self.protocol.num_clips * self.protocol.num_crops
        for pieces in pack(self._readable(videos, shard, on_video), self.config.evaluation.batch_size):
            logits_BK = self._forward(pieces)
            ends = np.cumsum([len(piece.pixels) for piece in pieces])
            for piece, logits_vK in zip(pieces, np.split(logits_BK, ends[:-1]), strict=True):
                views = waiting.setdefault(piece.index, [])
                views.extend(logits_vK)
                if len(views) == num_views:
                    scores_K = fuse(waiting.pop(piece.index), self.fusion, self.records.multi_label)
                    self._check_finite(piece.index, scores_K)
                    shard.indices.append(piece.index)
                    shard.scores.append(scores_K)
                    on_video(len(shard))

    def _readable(
        self, videos: Iterator[VideoViews], shard: Shard, on_video: Callable[[int], None]
    ) -> Iterator[tuple[int, int, Tensor]]:
        num_views = self.protocol.num_clips * self.protocol.num_crops
        for video in videos:
            if video.pixels is None:
                shard.failures.append((video.index, video.failure.reason if video.failure else "no reason given"))
                on_video(len(shard))
            elif len(video.pixels) != num_views:
                raise RuntimeError(f"{self.records.ids[video.index]!r} has {len(video.pixels)} views, not {num_views}")
            else:
                yield video.index, video.color, video.pixels

    def _forward(self, pieces: list[Piece]) -> NDArray[np.float64]:
        device = self.accelerator.device
        pixels = torch.cat([piece.pixels.to(device, non_blocking=True) for piece in pieces])
        color = torch.tensor([piece.color for piece in pieces for _ in piece.pixels])
        input_BTCHW = prepare_input(pixels, color.to(device), self.config.clip)
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

    def _check_finite(self, index: int, scores_K: NDArray[np.float64]) -> None:
        if not np.isfinite(scores_K).all():
            raise UserError(
                f"the model's scores for video {self.records.ids[index]!r} ({self.records.path(index)}) are not "
                "finite; its weights or the precision (training.precision) cannot be used"
            )


def _shifted(on_video: Callable[[int], None], before: int, finished: int) -> None:
    on_video(before + finished)
