"""The configuration of one run."""

from dataclasses import dataclass, field

from vidtl.config.augmentation import AugmentationConfig
from vidtl.config.checks import affects
from vidtl.config.clip import ClipConfig
from vidtl.config.data import DataConfig
from vidtl.config.evaluation import EvaluationConfig
from vidtl.config.model import ModelConfig
from vidtl.config.optimizer import OptimizerConfig
from vidtl.config.schedule import ScheduleConfig
from vidtl.config.training import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """One run: the YAML file, the command line's `--section.key value` and the record inside each checkpoint.

    Effects of a section are those of all its fields; in the other sections each field has its own.
    """

    data: DataConfig = field(default_factory=DataConfig)
    clip: ClipConfig = field(default_factory=ClipConfig, metadata=affects("training", "scores"))
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig, metadata=affects("training"))
    model: ModelConfig = field(default_factory=ModelConfig, metadata=affects("training"))
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig, metadata=affects("training"))
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig, metadata=affects("training"))
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
