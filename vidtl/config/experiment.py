"""One run, from its data to its evaluation."""

from dataclasses import dataclass, field

from vidtl.config.augmentation import AugmentationConfig
from vidtl.config.clip import ClipConfig
from vidtl.config.data import DataConfig
from vidtl.config.evaluation import EvaluationConfig
from vidtl.config.model import ModelConfig
from vidtl.config.optimizer import OptimizerConfig
from vidtl.config.schedule import ScheduleConfig
from vidtl.config.training import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """One run: the YAML file, the command line's `--section.key value` and the record inside each checkpoint."""

    data: DataConfig = field(default_factory=DataConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
