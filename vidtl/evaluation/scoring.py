"""Scoring of videos in fixed batches: forward passes and fusion.

The last bits of a network's output depend on how many clips share a forward pass. Batches of whole videos are therefore
fixed by annotation order, number of views and batch size alone: any process, before or after an interruption, forms the
same forward passes and gets the same bits.

Axes: N videos, V views of one video, B clips of one forward pass, K classes.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Self

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn

from vidtl.annotations.records import Records
from vidtl.config import ClipConfig, EvaluationConfig
from vidtl.data.batch import VideoViews, prepare_input
from vidtl.data.protocols import Protocol
from vidtl.errors import UserError
from vidtl.evaluation.fusion import fuse


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of some videos, by record number: the one form from the forward pass to the metrics."""

    rows: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    """float64 [K] each."""
    failures: dict[int, str] = field(default_factory=dict)
    """Reasons of the videos that could not be read."""

    def update(self, other: Self) -> None:
        """Add the videos of `other`.

        Raises:
            RuntimeError: a video that is here already (a bug).
        """
        if twice := self.numbers() & other.numbers():
            raise RuntimeError(f"{len(twice)} videos were scored more than once, for example record {min(twice)}")
        self.rows.update(other.rows)
        self.failures.update(other.failures)

    def numbers(self) -> set[int]:
        """Record numbers of all videos."""
        return self.rows.keys() | self.failures.keys()

    def table(self, num_videos: int, num_classes: int) -> NDArray[np.float64]:
        """Scores [N, K] of records 0 to N - 1; -inf for unreadable videos.

        Raises:
            RuntimeError: a video that is not here (a bug).
        """
        if missing := set(range(num_videos)) - self.numbers():
            raise RuntimeError(f"{len(missing)} of {num_videos} videos were not scored, for example {min(missing)}")
        unreadable = np.full(num_classes, -np.inf)
        return np.array([self.rows.get(number, unreadable) for number in range(num_videos)]).reshape(-1, num_classes)


def fixed_batches(num_videos: int, num_views: int, batch_size: int) -> list[range]:
    """List the record numbers of each batch: whole videos, as many as their views fit into `batch_size` clips."""
    size = max(1, batch_size // num_views)
    return [range(first, min(first + size, num_videos)) for first in range(0, num_videos, size)]


@dataclass(frozen=True)
class Scorer:
    """A model and the way in which the views of a video become one score per class."""

    model: nn.Module
    """Maps input_BTCHW to logits_BK; in evaluation mode."""
    records: Records
    clip: ClipConfig
    evaluation: EvaluationConfig
    protocol: Protocol
    accelerator: Accelerator
    """Device and precision."""

    @property
    def fusion(self) -> str:
        """Configured fusion, or the protocol's."""
        chosen = self.evaluation.fusion
        return self.protocol.fusion if chosen == "protocol" else chosen

    @property
    def num_views(self) -> int:
        """V."""
        return self.protocol.num_clips * self.protocol.num_crops

    def batches(self) -> list[range]:
        """Fixed batches of all records."""
        return fixed_batches(len(self.records), self.num_views, self.evaluation.batch_size)

    def score(
        self, videos: Iterable[VideoViews], batches: Iterable[range], on_video: Callable[[int], None]
    ) -> Generator[Scores, None, None]:
        """Score one batch after the other.

        Args:
            videos: the videos of the batches in order, each once, and no others.
            batches: some of `batches()`.
            on_video: called for each video read, with their number so far.

        Raises:
            UserError: a model with another number of classes, or scores that are not finite.
            RuntimeError: a video that is not due, or has the wrong number of views (a bug).
        """
        iterator, finished = iter(videos), 0
        for batch in batches:
            due: list[VideoViews] = []
            for video in islice(iterator, len(batch)):
                due.append(video)
                finished += 1
                on_video(finished)
            numbers = [video.index for video in due]
            if numbers != list(batch):
                raise RuntimeError(f"records {numbers} were read where {list(batch)} were due")
            yield self._score(due)
        for video in iterator:
            raise RuntimeError(f"record {video.index} was read after all that were due")

    def _score(self, videos: Sequence[VideoViews]) -> Scores:
        reasons = {video.index: video.failure.reason for video in videos if video.failure}
        readable = [video for video in videos if video.pixels is not None]
        for video in readable:
            if len(_pixels(video)) != self.num_views:
                raise RuntimeError(f"record {video.index} has {len(_pixels(video))} views, not {self.num_views}")
        logits_VK = self._forward(readable) if readable else np.zeros((0, 1))
        rows = {}
        for video, views_VK in zip(readable, np.split(logits_VK, max(len(readable), 1)), strict=False):
            rows[video.index] = fuse(views_VK, self.fusion, self.records.multi_label)
            self._check_finite(video.index, rows[video.index])
        return Scores(rows, reasons)

    @torch.inference_mode()
    def _forward(self, videos: Sequence[VideoViews]) -> NDArray[np.float64]:
        """Logits [videos x V, K]."""
        device = self.accelerator.device
        pixels = torch.cat([_pixels(video).to(device, non_blocking=True) for video in videos])
        color = torch.tensor([video.color for video in videos]).repeat_interleave(self.num_views).to(device)
        parts = []
        for first in range(0, len(pixels), self.evaluation.batch_size):
            clips = slice(first, first + self.evaluation.batch_size)
            input_BTCHW = prepare_input(pixels[clips], color[clips], self.clip)
            with self.accelerator.autocast():
                logits_BK = self.model(input_BTCHW)
            parts.append(logits_BK.cpu().double())
        logits = torch.cat(parts)
        if logits.shape != (len(pixels), len(self.records.classes)):
            raise UserError(
                f"the model gives {logits.shape[-1]} scores per clip, "
                f"but {self.records.annotation} has {len(self.records.classes)} classes"
            )
        table: NDArray[np.float64] = logits.numpy()
        return table

    def _check_finite(self, index: int, scores_K: NDArray[np.float64]) -> None:
        if not np.isfinite(scores_K).all():
            raise UserError(
                f"the model's scores for video {self.records.ids[index]!r} ({self.records.path(index)}) are not "
                "finite; its weights or the precision (training.precision) cannot be used"
            )


def _pixels(video: VideoViews) -> torch.Tensor:
    assert video.pixels is not None
    return video.pixels
