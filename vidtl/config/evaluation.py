"""Settings of evaluation and prediction."""

from dataclasses import dataclass
from typing import Literal

from vidtl.config.checks import require, require_choices, setting


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Settings of evaluation and prediction."""

    protocol: str = setting("dataset", "scores")
    """Named view protocol, such as `vivit_4x3` or `center`; `dataset` is the one that `dataset.yaml` names."""
    fusion: Literal["protocol", "mean_logits", "mean_probabilities", "max"] = setting("protocol", "scores")
    """Fusion of the scores of a video's views; `protocol` is the published one."""
    batch_size: int = setting(16, "rounding")
    """Clips per forward pass and process; bounds memory."""
    max_videos: int = setting(0, "scores")
    """Evaluate the first so many videos only; 0: all. The report says so."""
    averaged_weights: bool = setting(True, "scores")
    """Use the average of the weights where the run kept one (`training.ema_decay`)."""

    def __post_init__(self) -> None:
        require_choices(self, "evaluation")
        require(self.batch_size >= 1, "evaluation.batch_size", self.batch_size, "1 or more")
        require(self.max_videos >= 0, "evaluation.max_videos", self.max_videos, "0 or more")
