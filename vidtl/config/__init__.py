"""The whole experiment as typed dataclasses: the source of all defaults, of `--help` and of what checkpoints record.

This module imports nothing heavy and builds nothing. Checks that need one section only live in that section's
`__post_init__`; checks that need the data or the model are made where those are built. Every error names the dotted
key, the value received and what is allowed.
"""

from vidtl.config.augmentation import AugmentationConfig
from vidtl.config.clip import ClipConfig
from vidtl.config.data import DataConfig
from vidtl.config.evaluation import EvaluationConfig
from vidtl.config.experiment import ExperimentConfig
from vidtl.config.model import ModelConfig, TokenLearnerConfig
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
    "ModelConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "TokenLearnerConfig",
    "TrainingConfig",
]
