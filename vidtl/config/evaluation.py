"""Settings of evaluation and prediction."""

from dataclasses import dataclass
from typing import Literal

from vidtl.config.checks import require, require_choices


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Settings of evaluation and prediction."""

    protocol: str = "dataset"
    """Named view protocol, such as `vivit_4x3` or `center`; `dataset` is the one that `dataset.yaml` names."""
    fusion: Literal["protocol", "mean_logits", "mean_probabilities", "max"] = "protocol"
    """Fusion of the scores of a video's views; `protocol` is the published one."""
    batch_size: int = 16
    """Clips per forward pass and process; bounds memory."""
    max_videos: int = 0
    """Evaluate the first so many videos only; 0: all. The report says so."""
    averaged_weights: bool = True
    """Use the average of the weights where the run kept one (`training.ema_decay`)."""

    def __post_init__(self) -> None:
        require_choices(self, "evaluation")
        require(self.batch_size >= 1, "evaluation.batch_size", self.batch_size, "1 or more")
        require(self.max_videos >= 0, "evaluation.max_videos", self.max_videos, "0 or more")
