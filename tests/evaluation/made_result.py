"""Made-up evaluations, real files and a tiny model to draw examples from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tests.evaluation.tiny_evaluation import make_records
from tests.metrics.made_outcomes import made_outcomes
from vidtl.annotations.records import Records
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.evaluation.evaluator import EvaluationResult, Unreadable
from vidtl.evaluation.page import write_examples, write_page
from vidtl.evaluation.report import metrics_record, write_report
from vidtl.models import VideoModel, build_model
from vidtl.video.encoder import encode_video

CLIP = ClipConfig(num_frames=8, stride=1, frame_size=(32, 32), short_side=32)


def made_result(num_videos, names, multi_label=False, unreadable=(), ids=None, max_videos=0) -> EvaluationResult:
    """Video i has class i % K, multi-label also (i + 1) % K, but of 3 or more the last; half the answers are right."""
    rows, used = np.arange(num_videos), max(len(names) - 1, 2)
    targets = np.zeros((num_videos, len(names)), np.float32)
    targets[rows, rows % used] = 1
    if multi_label:
        targets[rows, (rows + 1) % used] = 1
    scores = np.random.default_rng(0).normal(0, 1, targets.shape) + 2 * targets
    scores[list(unreadable)] = -np.inf
    ids = list(ids or [f"video {i}" for i in rows])
    paths = [f"{name}.mp4" for name in ids]
    return EvaluationResult(
        annotation="folder/list.csv",
        root="videos",
        protocol="vivit_4x3",
        num_clips=4,
        num_crops=3,
        fusion="mean_logits",
        max_videos=max_videos,
        class_names=tuple(names),
        ids=ids,
        paths=paths,
        outcomes=made_outcomes(scores, targets, multi_label),
        unreadable=[Unreadable(ids[i], paths[i], "moov atom not found") for i in unreadable],
        shares=np.empty((num_videos, 0)),
    )


def made_report(result: EvaluationResult, folder: Path) -> Path:
    write_report(result, metrics_record(result), folder)
    write_examples(result, folder)
    return write_page(folder)


def made_videos(folder: Path, num_videos: int) -> Records:
    """Encoded files `0.mp4` ... of 12 frames, and their records."""
    rng = np.random.default_rng(1)
    for i in range(num_videos):
        encode_video(folder / f"{i}.mp4", rng.integers(0, 256, (12, 48, 64, 3), dtype=np.uint8), fps=10)
    return replace(make_records(num_videos, False), root=folder)


def tiny_model(num_tokens: int) -> VideoModel:
    torch.manual_seed(0)
    learner = TokenLearnerConfig(num_tokens=num_tokens, after_block=1)
    model = ModelConfig(width=16, depth=2, num_heads=2, temporal_depth=1, tubelet=(2, 8, 8), token_learner=learner)
    return build_model(model, CLIP, 2)
