"""Prediction for videos without annotations, with the views, preprocessing and fusion of an evaluation, to the bit.

    model = VideoModel.from_pretrained("runs/birds/checkpoints/step-00001000")
    for prediction in predict(model, find_videos([Path("clips")]).videos):
        print(prediction.path, prediction.best(5) or prediction.reason)

Axes: V views of one video, K classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from vidtl.annotations.records import ClassNames, Records
from vidtl.annotations.video_files import VideoFile, records_by_kind, records_of_paths, split_refused
from vidtl.config import DataConfig, ExperimentConfig
from vidtl.data.batch import VideoViews, prepare_input
from vidtl.data.loader import EvalLoader
from vidtl.data.protocols import Protocol, get_protocol
from vidtl.errors import UserError
from vidtl.evaluation.calibration import Calibration, tempered
from vidtl.evaluation.scoring import Scorer, probabilities
from vidtl.models import VideoModel
from vidtl.models.base import evaluation_mode
from vidtl.runtime.launch import make_accelerator


class ScoredClass(NamedTuple):
    """One class of one video; the score, a fused logit or probability, is that by which evaluation ranks."""

    name: str
    probability: float
    """Softmax of single-label models, sigmoid of multi-label ones; with a calibration, of logits / temperature."""
    score: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """Scores of one video."""

    path: Path
    class_names: tuple[str, ...]
    reason: str = ""
    """Reason why the video could not be read; empty if it was."""
    num_frames: int = 0
    duration_s: float = 0.0
    """Of the whole file."""
    scores: NDArray[np.float64] | None = None
    probabilities: NDArray[np.float64] | None = None
    """float64 [K] both; None for an unreadable video."""

    def best(self, count: int | None = None, threshold: float | NDArray[np.float64] = 0.0) -> list[ScoredClass]:
        """List classes, best first: at most `count` of them, of at least the probability `threshold`, one or [K]."""
        if self.scores is None or self.probabilities is None:
            return []
        order = np.argsort(-self.scores, kind="stable")[:count].tolist()
        classes = list(zip(self.class_names, self.probabilities.tolist(), self.scores.tolist(), strict=True))
        chosen = self.probabilities >= threshold
        return [ScoredClass(*classes[k]) for k in order if chosen[k]]


@dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """Reading and scoring of videos; see `vidtl.data.protocols` and `read_calibration`."""

    config: ExperimentConfig | None = None
    """The sections `clip`, `data` and `evaluation` are used; None: the defaults with the model's clip."""
    protocol: str = "center"
    multi_label: bool | None = None
    """A video may have several classes; None: as in the model, or single-label."""
    frame_rate: float | None = None
    """Frames per second of folders of images."""
    calibration: Calibration | None = None
    network: nn.Module | None = None
    """Scores the clips instead of the model, such as `vidtl.evaluation.token_budget.TokenScores`."""

    def resolved(self, model: VideoModel) -> tuple[ExperimentConfig, ClassNames, bool]:
        """Return `config`, the classes, and `multi_label`, by the model where they are None."""
        config = self.config or ExperimentConfig(clip=model.clip_config)
        multi_label = model.multi_label if self.multi_label is None else self.multi_label
        return config, ClassNames(output_names(model.class_names, model.num_classes)), bool(multi_label)


def output_names(class_names: Sequence[str], num_classes: int) -> tuple[str, ...]:
    """Return the class names of a model, or `class 0`, `class 1`, ... of one without names."""
    return tuple(class_names) or tuple(f"class {k}" for k in range(num_classes))


def predict(
    model: VideoModel,
    videos: Sequence[VideoFile],
    settings: PredictionSettings | None = None,
    accelerator: Accelerator | None = None,
) -> Iterator[Prediction]:
    """Score videos while later ones are being decoded, and yield one prediction for each, of unreadable ones a reason.

    Videos that cannot be opened come first, then files with a container, then images and folders of images, each in the
    order given. The batches are those of an evaluation of the videos in that order.

    `model` moves to the device of `accelerator` (None: made for this process). UserError for an unknown protocol,
    scores that are not finite, a missing decoder or a worker that died.
    """
    settings = settings or PredictionSettings()
    config, classes, multi_label = settings.resolved(model)
    accelerator = accelerator or make_accelerator(config.training.precision)
    model.to(accelerator.device)
    accepted, refusals = split_refused(videos, settings.frame_rate)
    for video, reason in refusals:
        yield Prediction(path=video.path, class_names=classes.names, reason=reason)
    for of_kind, records, data in records_by_kind(accepted, config.data, settings.frame_rate, classes, multi_label):
        sections = replace(config, data=data), get_protocol(settings.protocol)
        scored = predict_records(settings.network or model, records, *sections, accelerator)
        for video, each in zip(of_kind, scored, strict=True):
            yield replace(calibrated(each, settings.calibration, multi_label), path=video.path)


def calibrated(prediction: Prediction, calibration: Calibration | None, multi_label: bool) -> Prediction:
    """Return the prediction with the probabilities of logits / temperature."""
    if calibration is None or prediction.probabilities is None:
        return prediction
    return replace(prediction, probabilities=tempered(prediction.probabilities, calibration.temperature, multi_label))


def load_clip(path: str | Path, model: VideoModel, frame_rate: float | None = None) -> Tensor:
    """Read the central clip of one video as `predict` does: normalized, at the model's frames, stride and size.

    `path` is a video, an image, or a folder with one video or the numbered frames of one, which needs a `frame_rate`.
    Return float32 [1, T, 3, H, W] on the model's device; UserError where not one video is there, or none can be read.
    """
    records, data = records_of_paths([Path(path)], DataConfig(), model.clip_config.num_frames == 1, frame_rate)
    if len(records) != 1:
        raise UserError(f"{path} holds {len(records)} videos; allowed: one")
    (views,) = EvalLoader(records, get_protocol("center"), model.clip_config, data)
    if views.pixels is None:
        raise UserError(f"{path}: {views.failure.reason if views.failure else ''}")
    device = next(model.parameters()).device
    return prepare_input(views.pixels.to(device), torch.tensor([views.color], device=device), model.clip_config)


def predict_records(
    model: nn.Module,
    records: Records,
    config: ExperimentConfig,
    protocol: Protocol,
    accelerator: Accelerator,
    failures: Mapping[int, str] | None = None,
) -> Iterator[Prediction]:
    """Score records in their order, with or without labels; those in `failures` are not opened and have its reasons."""
    scorer = Scorer(model, records, config.clip, config.evaluation, protocol, accelerator)
    lengths: dict[int, tuple[int, float]] = {}
    names = records.classes.names

    def views() -> Iterator[VideoViews]:
        for video in EvalLoader(records, protocol, config.clip, config.data, failures=failures):
            lengths[video.index] = video.num_frames, video.duration_s
            yield video

    with evaluation_mode(model):
        for batch in scorer.score(views(), scorer.batches(), lambda finished: None):
            for number in sorted(batch.numbers()):
                num_frames, duration_s = lengths.pop(number)
                row = batch.rows.get(number)
                scores_K = None if row is None else row[: len(names)]
                chances_K = None if scores_K is None else probabilities(scores_K, scorer.fusion, records.multi_label)
                yield Prediction(
                    path=records.path(number), class_names=names, reason=batch.failures.get(number, ""),
                    num_frames=num_frames, duration_s=duration_s, scores=scores_K, probabilities=chances_K,
                )  # fmt: skip
