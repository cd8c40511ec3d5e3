"""Options and loading of a trained model, for the tools that use one."""

from dataclasses import fields
from pathlib import Path

from command_line import arguments_of_process, last_value, parse_experiment
from jsonargparse import ArgumentParser, Namespace
from torch import Tensor, nn

from vidtl.config import ExperimentConfig
from vidtl.errors import UserError, did_you_mean
from vidtl.models.directory import load_model_directory, read_model_config
from vidtl.training.checkpoint import Checkpoint, find_checkpoint


def parse_with_model(parser: ArgumentParser) -> tuple[Namespace, ExperimentConfig, Checkpoint]:
    """Add `--checkpoint`, parse the command line over the settings of that model's run, and find the model.

    `Checkpoint.verify` is left to the caller, on one process.

    Raises:
        UserError: as `parse_experiment` and `find_checkpoint`.
    """
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        help="Folder of a run (its newest valid checkpoint is taken), one checkpoint of it, or any model directory",
    )
    arguments = arguments_of_process()
    given = last_value("--checkpoint", arguments)
    if given is None:
        parse_experiment(parser, arguments)  # prints the help, or says what is missing
        raise UserError("--checkpoint is missing; allowed: the folder of a run, a checkpoint, or a model directory")
    checkpoint = find_checkpoint(Path(given))
    if checkpoint.experiment_file is None:  # a model directory has the settings of its clip, but no experiment
        clip = read_model_config(checkpoint.path).clip
        parser.set_defaults({f"clip.{field.name}": getattr(clip, field.name) for field in fields(clip)})
    options, config = parse_experiment(parser, arguments, checkpoint.experiment_file)
    return options, config, checkpoint.with_average() if config.evaluation.averaged_weights else checkpoint


class ClassOrder(nn.Module):
    """A model whose scores are in the order of the data's class names."""

    def __init__(self, model: nn.Module, order: list[int]) -> None:
        super().__init__()
        self.model = model
        self.order = order

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        """Return logits [B, K] in the data's order."""
        logits_BK: Tensor = self.model(input_BTCHW)
        return logits_BK[:, self.order]


def load_for_classes(model_directory: Path, class_names: tuple[str, ...]) -> nn.Module:
    """Load a model, its scores in the order of `class_names`; classes are matched by name.

    Raises:
        UserError: the model was trained on other classes.
    """
    model = load_model_directory(model_directory)
    known = model.class_names
    if model.num_classes != len(class_names):
        raise UserError(
            f"{model_directory} has {model.num_classes} classes and the data {len(class_names)}; "
            "allowed: a model and data of the same classes"
        )
    if not known or known == class_names:
        return model
    unknown = [name for name in class_names if name not in known]
    if unknown:
        raise UserError(f"{model_directory} has no class {unknown[0]!r}; {did_you_mean(unknown[0], known)}")
    return ClassOrder(model, [known.index(name) for name in class_names])
