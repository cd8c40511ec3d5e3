"""Made-up evaluations, their pictures from real files and models, and the pages written from them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from vidtl.config import ClipConfig, ExperimentConfig, ModelConfig, TokenLearnerConfig
from vidtl.data.protocols import get_protocol
from vidtl.data.records import ClassNames, Records, StringColumn
from vidtl.data.toy import encode_video
from vidtl.evaluation.evaluator import all_metrics
from vidtl.evaluation.html import draw_pictures, example_indices, write_page
from vidtl.evaluation.report import metrics_record
from vidtl.evaluation.result import EvaluationResult, Unreadable
from vidtl.models import VideoModel, build_model

CLIP = ClipConfig(num_frames=8, stride=1, frame_size=(32, 32), short_side=32)


def made_result(
    num_videos: int,
    names: Sequence[str],
    multi_label: bool = False,
    unreadable: Sequence[int] = (),
    ids: Sequence[str] | None = None,
) -> EvaluationResult:
    """Video i has class i % K; multi-label ones also (i + 1) % K; about half of the single-label answers are right.

    The last class has no video where there are more than two.
    """
    rng = np.random.default_rng(0)
    num_classes = len(names)
    used = max(num_classes - 1, 2)
    targets = np.zeros((num_videos, num_classes), np.float32)
    rows = np.arange(num_videos)
    targets[rows, rows % used] = 1
    if multi_label:
        targets[rows, (rows + 1) % used] = 1
    scores = rng.normal(0, 1, targets.shape) + 2 * targets
    scores[list(unreadable)] = -np.inf
    readable = [i for i in range(num_videos) if i not in unreadable]
    ids = list(ids or [f"video {i}" for i in range(num_videos)])
    paths = [f"{name}.mp4" for name in ids]
    metrics, metrics_readable = (
        all_metrics(scores[some], targets[some], "mean_logits", multi_label, tuple(names)) for some in (rows, readable)
    )
    return EvaluationResult(
        annotation="folder/list.csv",
        root="videos",
        protocol="vivit_4x3",
        num_clips=4,
        num_crops=3,
        fusion="mean_logits",
        multi_label=multi_label,
        max_videos=0,
        num_annotated=num_videos,
        num_scored=len(readable),
        unreadable=[Unreadable(ids[i], paths[i], "moov atom not found") for i in unreadable],
        metrics=metrics,
        metrics_readable=metrics_readable,
        class_names=tuple(names),
        ids=ids,
        paths=paths,
        scores=scores,
        targets=targets,
    )


def made_videos(folder: Path, num_videos: int) -> Records:
    """Encoded files `0.mp4` ... of 12 frames, and their records."""
    rng = np.random.default_rng(1)
    for i in range(num_videos):
        encode_video(folder / f"{i}.mp4", rng.integers(0, 256, (12, 48, 64, 3), dtype=np.uint8), fps=10)
    return Records(
        root=folder,
        classes=ClassNames(("one", "two")),
        multi_label=False,
        annotation=Path("list.csv"),
        ids=StringColumn.from_strings(map(str, range(num_videos))),
        paths=StringColumn.from_strings(f"{i}.mp4" for i in range(num_videos)),
        lines=np.arange(1, num_videos + 1, dtype=np.int32),
        label_offsets=np.arange(num_videos + 1),
        label_classes=np.zeros(num_videos, np.int32),
        label_starts_s=np.full(num_videos, -np.inf, np.float32),
        label_ends_s=np.full(num_videos, np.inf, np.float32),
        segment_starts_s=np.zeros(num_videos),
        segment_ends_s=np.full(num_videos, np.inf),
    )


def tiny_model(num_tokens: int) -> VideoModel:
    """A ViViT of four timesteps; without TokenLearner for 0 tokens."""
    torch.manual_seed(0)
    learner = TokenLearnerConfig(num_tokens=num_tokens, after_block=1)
    vivit = ModelConfig(width=16, depth=2, num_heads=2, temporal_depth=1, tubelet=(2, 8, 8), token_learner=learner)
    return build_model(vivit, CLIP, 2)


def made_page(result: EvaluationResult, folder: Path, records: Records | None = None, num_tokens: int = 4) -> Path:
    """The page of a result, with pictures where there are `records`."""
    folder.mkdir(parents=True, exist_ok=True)
    if records is not None:
        config, protocol = ExperimentConfig(clip=CLIP), get_protocol(result.protocol)
        draw_pictures(tiny_model(num_tokens), records, config, protocol, example_indices(result), folder)
    return write_page(result, metrics_record(result), folder)
