"""The configuration of one run, and that of evaluation and prediction."""

from dataclasses import dataclass, field
from typing import Literal

from vidtl.config.augmentation import AugmentationConfig
from vidtl.config.checks import affects, require_choices, require_each, setting
from vidtl.config.data import ClipConfig, DataConfig
from vidtl.config.model import ModelConfig
from vidtl.config.training import OptimizerConfig, ScheduleConfig, TrainingConfig


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
    """Evaluate only this number of videos, from the first on; 0 evaluates all. The report contains the number."""
    averaged_weights: bool = setting(True, "scores")
    """Use the average of the weights where the run kept one (`training.ema_decay`)."""

    def __post_init__(self) -> None:
        require_choices(self, "evaluation")
        require_each(self, "evaluation", "batch_size", lambda value: value >= 1, "1 or more")
        require_each(self, "evaluation", "max_videos", lambda value: value >= 0, "0 or more")


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """One run: the YAML file, the command line's `--section.key value` and the record inside each checkpoint."""

    data: DataConfig = field(default_factory=DataConfig)
    clip: ClipConfig = field(default_factory=ClipConfig, metadata=affects("training", "scores"))
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig, metadata=affects("training"))
    model: ModelConfig = field(default_factory=ModelConfig, metadata=affects("training"))
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig, metadata=affects("training"))
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig, metadata=affects("training"))
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
