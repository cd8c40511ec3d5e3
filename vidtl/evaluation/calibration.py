"""Temperature and thresholds of a model, fitted on one evaluation and kept as `calibration.json` beside its weights.

The temperature, which divides the logits, minimizes the negative log-likelihood (Guo et al., "On calibration of modern
neural networks", 2017, section 4.2). With several labels each class has the threshold of its largest F1; with one, the
answer is the best class, which a temperature leaves as it is. Axes: N videos, K classes.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidtl.config.checks import require
from vidtl.config.documents import read_json
from vidtl.config.load import Document, from_document
from vidtl.evaluation.scoring import probabilities
from vidtl.metrics import Outcomes
from vidtl.metrics.table import cross_entropy
from vidtl.models.base import VideoModel
from vidtl.runtime.files import whole_file
from vidtl.training.checkpoint import Checkpoint

FILE_NAME = "calibration.json"
LOWEST, HIGHEST = 0.05, 20.0  # temperatures: that of a model without mistakes would be 0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Content of `calibration.json`; the fingerprint is that of the model (`Checkpoint.fingerprint`)."""

    fingerprint: str
    step: int | None = None
    split: str
    protocol: str
    num_videos: int
    multi_label: bool
    temperature: float
    thresholds: dict[str, float] = field(default_factory=dict)
    """Least probability of each class of multi-label data; 0.5 for classes without videos."""
    token_temperatures: dict[str, float] = field(default_factory=dict)
    """Temperatures of an elastic model, by the number of tokens."""
    nll: tuple[float, float]
    """Mean negative log-likelihood of a video (with several labels, of one decision), before and after."""
    ece: tuple[float, float]
    """Expected calibration error in 0..1, before and after."""

    def __post_init__(self) -> None:
        for value in (self.temperature, *self.token_temperatures.values()):
            require(LOWEST <= value <= HIGHEST, "temperature", value, f"{LOWEST} to {HIGHEST}")
        for name, value in self.thresholds.items():
            require(0 <= value <= 1, f"thresholds.{name}", value, "a probability from 0 to 1")

    def __str__(self) -> str:
        thresholds = f" and {len(self.thresholds)} thresholds" if self.thresholds else ""
        fitted = f"{self.num_videos} videos of split {self.split}, protocol {self.protocol}"
        return f"temperature {self.temperature:.3g}{thresholds}, fitted on {fitted}"


def fit_calibration(outcomes: Outcomes, class_names: Sequence[str], **origin: Any) -> Calibration:
    """Fit temperature and thresholds to the readable videos; `origin` has the fields up to `protocol`."""
    before, multi_label = outcomes[outcomes.readable], outcomes.multi_label
    temperature = fit_temperature(before.probabilities, before.targets, multi_label)
    after = replace(before, probabilities=tempered(before.probabilities, temperature, multi_label))
    thresholds = best_thresholds(after.probabilities, after.targets).tolist() if multi_label else []
    return Calibration(
        **origin,
        num_videos=len(before),
        multi_label=multi_label,
        temperature=temperature,
        thresholds=dict(zip(class_names, thresholds, strict=False)),
        nll=(cross_entropy(before), cross_entropy(after)),
        ece=(before.calibration.ece, after.calibration.ece),
    )


def fit_temperature(chances_NK: NDArray[np.float64], targets_NK: NDArray[np.bool_], multi_label: bool) -> float:
    """Find the best temperature by bisection, as the likelihood is concave in 1 / temperature."""
    logits_NK = _logits(chances_NK, multi_label)
    low, high = LOWEST, HIGHEST
    for _ in range(50):
        middle = (low * high) ** 0.5
        slope = ((tempered(chances_NK, middle, multi_label) - targets_NK) * logits_NK).sum()
        low, high = (low, middle) if slope < 0 else (middle, high)
    return low


def tempered(chances_NK: NDArray[np.float64], temperature: float, multi_label: bool) -> NDArray[np.float64]:
    """Convert probabilities [..., K] to those of logits / temperature."""
    return probabilities(_logits(chances_NK, multi_label) / temperature, "mean_logits", multi_label)


def best_thresholds(chances_NK: NDArray[np.float64], targets_NK: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Find the threshold [K] of the largest F1 of each class, halfway between two probabilities; 0.5 without videos."""
    order = np.argsort(-chances_NK, axis=0, kind="stable")
    chances, hits = np.take_along_axis(chances_NK, order, axis=0), np.take_along_axis(targets_NK, order, axis=0)
    below = np.vstack([chances[1:], np.zeros_like(chances[:1])])
    f1 = 2 * hits.cumsum(axis=0) / (np.arange(1, len(order) + 1)[:, None] + hits.sum(axis=0))
    best = np.where(chances > below, f1, -1).argmax(axis=0)[None]  # no threshold separates equal probabilities
    return np.where(hits.any(axis=0), np.take_along_axis((chances + below) / 2, best, axis=0)[0], 0.5)


def write_calibration(calibration: Calibration, checkpoint: Checkpoint) -> Path:
    """Write the file beside the weights and return its path; UserError if that fails."""
    path = checkpoint.model_directory / FILE_NAME
    with whole_file(path) as file:
        json.dump(asdict(calibration), file, indent=1)
    return path


def read_calibration(checkpoint: Checkpoint, model: VideoModel, multi_label: bool) -> Calibration | None:
    """Read the file beside the weights, if any, thresholds in the model's order; UserError for another model's."""
    path = checkpoint.model_directory / FILE_NAME
    if not path.exists():
        return None
    document = Document(read_json(path), str(path))
    found = from_document(Calibration, document)
    names = (model.class_names or tuple(found.thresholds)) if multi_label else ()
    fits = set(found.thresholds) == set(names) and len(names) == (model.num_classes if multi_label else 0)
    if not fits or (found.fingerprint, found.multi_label) != (checkpoint.fingerprint(), multi_label):
        allowed = "the file that eval.py --calibrate writes for this one"
        document.refuse("", f"fingerprint, multi_label or thresholds are those of another model; allowed: {allowed}")
    return replace(found, thresholds={name: found.thresholds[name] for name in names})


def _logits(chances_NK: NDArray[np.float64], multi_label: bool) -> NDArray[np.float64]:
    chances = chances_NK.clip(1e-300, 1 - 1e-16)
    return np.asarray(np.log(chances) - (np.log1p(-chances) if multi_label else 0))
