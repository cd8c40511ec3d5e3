"""The experiment as typed dataclasses: the source of all defaults, of `--help` and of the record in each checkpoint."""

from vidtl.config.augmentation import AUGMENTATION_PRESETS as AUGMENTATION_PRESETS
from vidtl.config.augmentation import AugmentationConfig as AugmentationConfig
from vidtl.config.data import ClipConfig as ClipConfig
from vidtl.config.data import DataConfig as DataConfig
from vidtl.config.experiment import EvaluationConfig as EvaluationConfig
from vidtl.config.experiment import ExperimentConfig as ExperimentConfig
from vidtl.config.model import ModelConfig as ModelConfig
from vidtl.config.model import TokenLearnerConfig as TokenLearnerConfig
from vidtl.config.training import OptimizerConfig as OptimizerConfig
from vidtl.config.training import ScheduleConfig as ScheduleConfig
from vidtl.config.training import TrainingConfig as TrainingConfig
