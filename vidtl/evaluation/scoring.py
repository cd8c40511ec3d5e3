"""Scoring of videos in fixed batches: forward passes, and fusion of the views of a video into one score per class.

The last bits of a network's output depend on the number of clips in a forward pass. Batches of whole videos are
therefore fixed by annotation order, views and batch size alone: any process, before or after an interruption, gets the
same bits. Fusion is in float64, so that neither the number of views nor the size of the logits decides a rank.

Clips of a forward pass that have frames in common, such as overlapping windows, share the work of the timesteps that
are equal where the model allows it (`ViViT.timestep_frames`). Which ones depends on the clips of the pass alone.

Axes: N videos, V views of one video (clips x crops), B clips of one forward pass, K classes.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Self

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from vidtl.annotations.records import Records
from vidtl.config import ClipConfig, EvaluationConfig
from vidtl.data.batch import VideoViews, prepare_input
from vidtl.data.protocols import Protocol
from vidtl.errors import UserError


@dataclass(frozen=True, eq=False)
class Scores:
    """Rows of some videos, such as scores [K], and reasons of unreadable ones, by record number."""

    rows: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)

    def update(self, other: Self) -> None:
        """Add the videos of `other`; RuntimeError for a video that is here already (a bug)."""
        if twice := self.numbers() & other.numbers():
            raise RuntimeError(f"{len(twice)} videos were scored more than once, for example record {min(twice)}")
        self.rows.update(other.rows)
        self.failures.update(other.failures)

    def numbers(self) -> set[int]:
        """Return the record numbers of all videos."""
        return self.rows.keys() | self.failures.keys()

    def table(self, num_videos: int, num_columns: int) -> NDArray[np.float64]:
        """Return the rows [N, num_columns], -inf for unreadable videos; RuntimeError for a missing video (a bug)."""
        if missing := set(range(num_videos)) - self.numbers():
            raise RuntimeError(f"{len(missing)} of {num_videos} videos were not scored, for example {min(missing)}")
        unreadable = np.full(num_columns, -np.inf)
        return np.array([self.rows.get(number, unreadable) for number in range(num_videos)]).reshape(-1, num_columns)


def output_layout(model: nn.Module, num_classes: int) -> tuple[list[int], int]:
    """Return the ends of the tables of K scores in a row, usually one (else `model.layout`), and the row's length."""
    tables, shares = getattr(model, "layout", (1, 0))
    return [num_classes * (i + 1) for i in range(tables)], num_classes * tables + shares


def fixed_batches(num_videos: int, num_views: int, batch_size: int) -> list[range]:
    """List the record numbers of each batch: whole videos, as many as their views fit into `batch_size` clips."""
    size = max(1, batch_size // num_views)
    return [range(first, min(first + size, num_videos)) for first in range(0, num_videos, size)]


@dataclass(frozen=True)
class Scorer:
    """A model with the batches and the fusion of its scores."""

    model: nn.Module
    """Maps input_BTCHW to logits_BK, or to the columns of `output_layout`; in evaluation mode."""
    records: Records
    clip: ClipConfig
    evaluation: EvaluationConfig
    protocol: Protocol
    accelerator: Accelerator

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
        """List the fixed batches of all records."""
        return fixed_batches(len(self.records), self.num_views, self.evaluation.batch_size)

    def score(
        self, videos: Iterable[VideoViews], batches: Iterable[range], on_video: Callable[[int], None]
    ) -> Generator[Scores, None, None]:
        """Score some of `batches()` one after the other; errors as of `vidtl.evaluation.evaluator.evaluate`.

        `videos` are those of the batches in order; `on_video` is called for each with the number of videos so far.
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
        scores = Scores(failures={video.index: video.failure.reason for video in videos if video.failure})
        readable = [video for video in videos if video.pixels is not None]
        for video in readable:
            if video.pixels is not None and len(video.pixels) * len(self.protocol.flips) != self.num_views:
                raise RuntimeError(f"record {video.index} has {len(video.pixels)} views, not {self.num_views}")
        if readable:
            ends, _ = output_layout(self.model, len(self.records.classes))
            for video, views_VC in zip(readable, np.split(self._forward(readable), len(readable)), strict=True):
                index, (*tables_VK, shares_VC) = video.index, np.split(views_VC, ends, axis=1)
                fused = [fuse(views_VK, self.fusion, self.records.multi_label) for views_VK in tables_VK]
                scores.rows[index] = np.concatenate([*fused, shares_VC.mean(axis=0)])
                if not np.isfinite(scores.rows[index]).all():
                    problem = f"of video {self.records.ids[index]!r} ({self.records.path(index)}) are not finite"
                    raise UserError(f"scores {problem}; its weights or training.precision cannot be used")
        return scores

    @torch.inference_mode()
    def _forward(self, videos: Sequence[VideoViews]) -> NDArray[np.float64]:
        """Compute the model's output [videos x V, C] for readable videos."""
        device, parts = self.accelerator.device, []
        pixels = torch.cat([video.pixels.to(device, non_blocking=True) for video in videos if video.pixels is not None])
        flips, num_decoded = self.protocol.flips, self.protocol.num_clips * self.protocol.decoded_crops
        colors = torch.tensor([video.color for video in videos]).repeat_interleave(num_decoded).to(device)
        frames = self._frames(videos)
        for first in range(0, len(pixels), self.evaluation.batch_size):
            clips = slice(first, first + self.evaluation.batch_size)
            input_BTCHW, *shared = self._inputs(pixels[clips], colors[clips], frames[clips])
            with self.accelerator.autocast():
                outputs_FBC = [self.model(input_BTCHW.flip(axes) if axes else input_BTCHW, *shared) for axes in flips]
            parts.append(torch.stack(outputs_FBC, dim=1).flatten(0, 1).cpu().double())
        logits = torch.cat(parts)
        num_classes = len(self.records.classes)
        if logits.shape != (len(pixels) * len(flips), output_layout(self.model, num_classes)[1]):
            problem = f"{self.records.annotation} has {num_classes} classes"
            raise UserError(f"the model gives {logits.shape[-1]} scores per clip, but {problem}")
        return logits.numpy()

    def _frames(self, videos: Sequence[VideoViews]) -> NDArray[np.int64]:
        """Return a number for file and crop of each clip, then the numbers of its frames: [videos x V, 1 + T]."""
        paths = [self.records.paths[video.index] for video in videos]
        count = self.protocol.decoded_crops
        crops = np.arange(self.protocol.num_clips * count) % count
        places = [count * paths.index(path) + crops for path in paths]
        clips = zip([video.frames for video in videos if video.frames is not None], places, strict=True)
        return np.concatenate([np.insert(frames, 0, place, axis=1) for frames, place in clips])

    def _inputs(self, pixels: Tensor, colors: Tensor, frames: NDArray[np.int64]) -> tuple[Tensor, ...]:
        """Convert clips to the arguments of the model; timesteps that they share are passed, and computed, once."""
        places_tL = getattr(self.model, "timestep_frames", None)
        if places_tL is not None:
            rows_BtL = np.insert(frames[:, 1 + places_tL], 0, frames[:, :1], axis=-1)
            rows = rows_BtL.reshape(-1, rows_BtL.shape[-1])
            _, firsts, timesteps = np.unique(rows, axis=0, return_index=True, return_inverse=True)
            if len(firsts) < len(rows):
                clips, places = np.divmod(firsts, len(places_tL))
                found = clips, places_tL[places], timesteps.reshape(rows_BtL.shape[:2])
                clips_U, frames_UL, timesteps_Bt = (torch.from_numpy(part).to(pixels.device) for part in found)
                distinct = pixels[clips_U[:, None], frames_UL]
                return prepare_input(distinct, colors[clips_U], self.clip), timesteps_Bt
        return (prepare_input(pixels, colors, self.clip),)


FUSIONS: dict[str, Callable[[torch.Tensor, bool], torch.Tensor]] = {
    "mean_logits": lambda logits_VK, multi_label: logits_VK.mean(dim=0),
    "mean_probabilities": lambda logits_VK, multi_label: _probabilities(logits_VK, multi_label).mean(dim=0),
    "max": lambda logits_VK, multi_label: (logits_VK if multi_label else logits_VK.softmax(dim=-1)).amax(dim=0),
}
"""`mean_logits`: ViViT, Scenic's trainer. `mean_probabilities`, softmax or with several labels sigmoid: SlowFast and
mmaction2; a float64 sigmoid reaches 1 at logits of about 37, beyond which classes tie. `max`: non-local networks and
SlowFast on Charades take the largest sigmoid, which ranks as the largest logit does, but saturates into ties."""


def fuse(logits_VK: ArrayLike, fusion: str, multi_label: bool) -> NDArray[np.float64]:
    """Fuse views, [V, K], to float64 [K]: logits for `mean_logits` and multi-label `max`, probabilities otherwise."""
    logits = torch.from_numpy(np.array(logits_VK, dtype=np.float64))
    return FUSIONS[fusion](logits, multi_label).numpy()


def probabilities(scores_NK: ArrayLike, fusion: str, multi_label: bool) -> NDArray[np.float64]:
    """Convert fused scores to probabilities float64 [N, K]: softmax or sigmoid of logits, other scores unchanged.

    Rows of -inf (unreadable videos) become NaN. Single-label rows sum to 1, but for `max` are maxima of several views.
    """
    scores = np.array(scores_NK, dtype=np.float64)
    scores[np.isneginf(scores).all(axis=-1)] = np.nan
    if fusion == "mean_logits" or (fusion == "max" and multi_label):
        scores = _probabilities(torch.from_numpy(scores), multi_label).numpy()
    return scores


def _probabilities(logits_VK: torch.Tensor, multi_label: bool) -> torch.Tensor:
    return logits_VK.sigmoid() if multi_label else logits_VK.softmax(dim=-1)
