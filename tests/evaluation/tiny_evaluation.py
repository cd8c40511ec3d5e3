"""Records, a loader and a model small enough to evaluate hundreds of times."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from vidtl.annotations.records import ClassNames, Records, StringColumn
from vidtl.config import ClipConfig, EvaluationConfig, ExperimentConfig
from vidtl.data.batch import Failure, VideoViews
from vidtl.data.protocols import get_protocol
from vidtl.evaluation.evaluator import EvaluationResult, evaluate

NUM_CLASSES = 6
PROTOCOL = replace(get_protocol("slowfast_10x3"), name="two_by_three", num_clips=2, num_crops=3)
CONFIG = ExperimentConfig(
    clip=ClipConfig(num_frames=2, stride=1, frame_size=(8, 8), short_side=8), evaluation=EvaluationConfig(batch_size=4)
)


def make_records(num_videos: int, multi_label: bool) -> Records:
    """Video i has class i % K; multi-label ones also (i + 2) % K, and video 4 has none."""
    labels = [[i % NUM_CLASSES, (i + 2) % NUM_CLASSES] if multi_label else [i % NUM_CLASSES] for i in range(num_videos)]
    if multi_label and num_videos > 4:
        labels[4] = []
    counts = np.array([len(row) for row in labels])
    return Records(
        root=Path("videos"),
        classes=ClassNames(tuple(f"class {k}" for k in range(NUM_CLASSES))),
        multi_label=multi_label,
        annotation=Path("list.csv"),
        ids=StringColumn.from_strings(f"-id{i}" for i in range(num_videos)),
        paths=StringColumn.from_strings(f"{i}.mp4" for i in range(num_videos)),
        lines=np.arange(1, num_videos + 1, dtype=np.int32),
        label_offsets=np.concatenate([[0], counts.cumsum()]).astype(np.int64),
        label_classes=np.array([k for row in labels for k in row], dtype=np.int32),
        label_starts_s=np.full(counts.sum(), -np.inf),
        label_ends_s=np.full(counts.sum(), np.inf),
        segment_starts_s=np.zeros(num_videos),
        segment_ends_s=np.full(num_videos, np.inf),
    )


def views_of(index: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(index).integers(0, 256, (6, 2, 8, 8, 3), dtype=np.uint8))


def read_views(records: Records, broken: Sequence[int], indices: Sequence[int]) -> Iterator[VideoViews]:
    """Read the records given, in that order, each once, as `EvalLoader` does."""
    for i in indices:
        if i in broken:
            failure = Failure(i, records.paths[i], f"no frames in {i}")
            yield VideoViews(index=i, pixels=None, color=0, failure=failure)
        else:
            yield VideoViews(index=i, pixels=views_of(i), color=0, failure=None, frames=np.zeros((6, 2), int))


class TinyModel(nn.Module):
    """Dropout and batch norm show whether it runs in evaluation mode; it notes its batch sizes."""

    def __init__(self, num_classes: int = NUM_CLASSES) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Linear(384, 32), nn.BatchNorm1d(32), nn.GELU(), nn.Dropout(0.5))
            self.head = nn.Linear(32, num_classes)
        self.batch_sizes: list[int] = []

    def forward(self, input_BTCHW: torch.Tensor) -> torch.Tensor:
        self.batch_sizes.append(len(input_BTCHW))
        return 4 * self.head(self.body(input_BTCHW.flatten(1)))


def run(records, broken=(), model=None, config=CONFIG, make_loader=None, **options) -> EvaluationResult:
    make_loader = make_loader or partial(read_views, records, broken)
    accelerator = options.pop("accelerator", None) or Accelerator(cpu=True)
    sections = config.clip, config.evaluation, PROTOCOL, accelerator
    return evaluate(model or TinyModel(), make_loader, records, *sections, **options)[0]
