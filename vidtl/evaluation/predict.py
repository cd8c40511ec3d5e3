"""Classes of videos that nobody annotated: the views, the preprocessing and the fusion of an evaluation, to the bit.

    model = VideoModel.from_pretrained("runs/birds/checkpoints/step-00001000")
    for prediction in predict(model, find_videos([Path("clips")]).videos):
        print(prediction.path, prediction.best(5) or prediction.reason)

Axes: V views of one video, K classes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from vidtl.config import ExperimentConfig
from vidtl.data.batch import VideoViews
from vidtl.data.loader import EvalLoader
from vidtl.data.protocols import get_protocol
from vidtl.data.records import ClassNames
from vidtl.data.video_files import VideoFile, by_pixel_format, records_of_files, refusal
from vidtl.evaluation.batching import video_groups
from vidtl.evaluation.fusion import probabilities
from vidtl.evaluation.scoring import Scorer
from vidtl.models.base import VideoModel
from vidtl.runtime.launch import make_accelerator


class ScoredClass(NamedTuple):
    """One class of one video."""

    name: str
    probability: float
    """Softmax of single-label models, sigmoid of multi-label ones."""
    score: float
    """What the protocol's fusion gives and evaluation ranks by: a logit or a probability."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """What the model says about one video."""

    path: Path
    class_names: tuple[str, ...]
    reason: str = ""
    """Why the video could not be read; empty where it could."""
    num_frames: int = 0
    """Of the whole file."""
    duration_s: float = 0.0
    scores: NDArray[np.float64] | None = None
    """float64 [K]; None for an unreadable video."""
    probabilities: NDArray[np.float64] | None = None

    def best(self, count: int | None = None, threshold: float = 0.0) -> list[ScoredClass]:
        """Classes, best first: at most `count` of them, of at least the probability `threshold`."""
        if self.scores is None or self.probabilities is None:
            return []
        order = np.argsort(-self.scores, kind="stable")[:count]
        return [
            ScoredClass(self.class_names[k], float(self.probabilities[k]), float(self.scores[k]))
            for k in order
            if self.probabilities[k] >= threshold
        ]


@dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """How videos are read and scored."""

    config: ExperimentConfig | None = None
    """Its sections `clip`, `data` and `evaluation` are used; None: the defaults with the model's clip."""
    protocol: str = "center"
    """Views of each video and their fusion; see `vidtl.data.protocols`."""
    multi_label: bool | None = None
    """Whether classes exclude each other; None: as the model says, or single-label where it does not know."""
    frame_rate: float | None = None
    """Frames per second of folders of images."""


def predict(
    model: VideoModel,
    videos: Sequence[VideoFile],
    settings: PredictionSettings | None = None,
    accelerator: Accelerator | None = None,
    on_video: Callable[[int], None] | None = None,
) -> Iterator[Prediction]:
    """Score videos while later ones are being decoded.

    First come videos that cannot be tried, then files with a container, then images and folders of images, each in the
    order given. Videos are grouped as an evaluation of them in that order groups them, so the scores are the same bits.

    Args:
        model: on the device of `accelerator`.
        videos: see `vidtl.data.video_files.find_videos`.
        accelerator: device and precision; None: made for this process.
        on_video: called after each video with the number of videos finished so far.

    Yields:
        One prediction for each video; one that cannot be read has a reason instead of scores.

    Raises:
        UserError: an unknown protocol, scores that are not finite, a decoder that is not there or a worker that died.
    """
    settings = settings or PredictionSettings()
    config = settings.config or ExperimentConfig(clip=model.clip_config)
    predictor = _Predictor(model, settings, accelerator or make_accelerator(config.training.precision))
    refusals = [refusal(video, settings.frame_rate) for video in videos]
    accepted = [video for video, reason in zip(videos, refusals, strict=True) if not reason]
    refused = [
        Prediction(path=video.path, class_names=predictor.class_names, reason=reason)
        for video, reason in zip(videos, refusals, strict=True)
        if reason
    ]
    scored = (
        predictor.predict(of_kind, replace(config, data=data))
        for of_kind, data in by_pixel_format(accepted, config.data)
    )
    for finished, prediction in enumerate(chain(refused, chain.from_iterable(scored)), start=1):
        if on_video:
            on_video(finished)
        yield prediction


class _Predictor:
    """A model, and how its scores are made."""

    def __init__(self, model: VideoModel, settings: PredictionSettings, accelerator: Accelerator) -> None:
        self.model = model
        self.protocol = get_protocol(settings.protocol)
        self.multi_label = bool(model.multi_label if settings.multi_label is None else settings.multi_label)
        self.frame_rate = settings.frame_rate
        self.accelerator = accelerator
        self.class_names = model.class_names or tuple(f"class {k}" for k in range(model.num_classes))

    def predict(self, videos: Sequence[VideoFile], config: ExperimentConfig) -> Iterator[Prediction]:
        """Predictions of videos whose frames travel in one format, in order."""
        records = records_of_files(videos, ClassNames(self.class_names), self.multi_label, self.frame_rate)
        fusion = self.protocol.fusion if config.evaluation.fusion == "protocol" else config.evaluation.fusion
        scorer = Scorer(self.model, records, config, self.protocol, fusion, self.accelerator)
        lengths: dict[int, tuple[int, float]] = {}
        views = _noting_lengths(
            EvalLoader(records, self.protocol, config.clip, config.data, single_frame=config.evaluation.single_frame),
            lengths,
        )
        num_views = self.protocol.num_clips * self.protocol.num_crops
        groups = video_groups(len(records), num_views, config.evaluation.batch_size)
        for shard in scorer.score(views, groups, lambda finished: None):
            scores, reasons = dict(zip(shard.indices, shard.scores, strict=True)), dict(shard.failures)
            for index in sorted([*scores, *reasons]):
                num_frames, duration_s = lengths.pop(index)
                scores_K = scores.get(index)
                yield Prediction(
                    path=videos[index].path,
                    class_names=self.class_names,
                    reason=reasons.get(index, ""),
                    num_frames=num_frames,
                    duration_s=duration_s,
                    scores=scores_K,
                    probabilities=None
                    if scores_K is None
                    else probabilities(scores_K[None], fusion, self.multi_label)[0],
                )


def _noting_lengths(views: Iterable[VideoViews], lengths: dict[int, tuple[int, float]]) -> Iterator[VideoViews]:
    for video in views:
        lengths[video.index] = video.num_frames, video.duration_s
        yield video
