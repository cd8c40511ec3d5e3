"""Options and loading of a trained model, for the tools that use one."""

from argparse import Namespace
from pathlib import Path

from command_line import ModelParser, make_experiment, settings_of_file
from torch import Tensor, nn

from vidtl.config import ExperimentConfig
from vidtl.errors import UserError, did_you_mean
from vidtl.models.directory import load_model_directory, read_model_config
from vidtl.training.checkpoint import Checkpoint, find_checkpoint


def parse_with_model(parser: ModelParser) -> tuple[Namespace, ExperimentConfig, Checkpoint]:
    """Parse the command line over the settings of a model's run, and find the model, without verifying it.

    UserError as `make_experiment` and `find_checkpoint`.
    """
    options = parser.parse_args()
    checkpoint = find_checkpoint(options.checkpoint)
    if checkpoint.experiment_file:
        recorded = settings_of_file(checkpoint.experiment_file)
    else:  # a model directory has the settings of its clip, but no experiment
        recorded = {f"clip.{name}": value for name, value in vars(read_model_config(checkpoint.path).clip).items()}
    config = make_experiment(options.settings, recorded)
    return options, config, checkpoint.with_average() if config.evaluation.averaged_weights else checkpoint


class ClassOrder(nn.Module):
    """A model with scores in the order of the data's class names."""

    def __init__(self, model: nn.Module, order: list[int]) -> None:
        super().__init__()
        self.model, self.order = model, order

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        """Return logits [B, K] in the data's order."""
        logits_BK: Tensor = self.model(input_BTCHW)
        return logits_BK[:, self.order]


def load_for_classes(model_directory: Path, class_names: tuple[str, ...]) -> nn.Module:
    """Load a model with scores in the order of `class_names`; UserError for a model of other classes."""
    model = load_model_directory(model_directory)
    known = model.class_names
    if model.num_classes != len(class_names):
        counts = f"{model.num_classes} classes and the data {len(class_names)}"
        raise UserError(f"{model_directory} has {counts}; allowed: a model and data of the same classes")
    if not known or known == class_names:
        return model
    unknown = [name for name in class_names if name not in known]
    if unknown:
        raise UserError(f"{model_directory} has no class {unknown[0]!r}; {did_you_mean(unknown[0], known)}")
    return ClassOrder(model, [known.index(name) for name in class_names])
