"""The experiment as typed dataclasses: the source of all defaults, of `--help` and of the record in each checkpoint.

Checks that need one section only are in that section's `__post_init__`; checks that need the data or the model are made
where those are built. This package imports nothing slow.
"""

from vidtl.config.augmentation import AugmentationConfig
from vidtl.config.clip import ClipConfig
from vidtl.config.data import DataConfig
from vidtl.config.evaluation import EvaluationConfig
from vidtl.config.experiment import ExperimentConfig
from vidtl.config.model import (
    MiniViTConfig,
    ModelConfig,
    PytorchVideoConfig,
    T2TViTConfig,
    TokenLearnerConfig,
    ViViTConfig,
)
from vidtl.config.optimizer import OptimizerConfig
from vidtl.config.presets import AUGMENTATION_PRESETS
from vidtl.config.schedule import ScheduleConfig
from vidtl.config.training import TrainingConfig

__all__ = [
    "AUGMENTATION_PRESETS",
    "AugmentationConfig",
    "ClipConfig",
    "DataConfig",
    "EvaluationConfig",
    "ExperimentConfig",
    "MiniViTConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PytorchVideoConfig",
    "ScheduleConfig",
    "T2TViTConfig",
    "TokenLearnerConfig",
    "TrainingConfig",
    "ViViTConfig",
]
