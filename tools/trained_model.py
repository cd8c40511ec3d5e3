"""Where the tools that use a trained model find it: a run's folder, one of its checkpoints, or any model directory."""

from argparse import Namespace
from pathlib import Path

from command_line import ModelParser, existing_directory, make_experiment, settings_of_file
from torch import Tensor, nn

from vidtl.config import ExperimentConfig
from vidtl.errors import UserError, did_you_mean
from vidtl.models.hub import CONFIG_FILE, load_model_directory, read_model_config
from vidtl.training.checkpoint import (
    EMA,
    EXPERIMENT,
    checkpoint_step,
    find_problem,
    list_checkpoints,
    newest_valid,
)
from vidtl.training.run_directory import RunDirectory


def parse_with_model(parser: ModelParser) -> tuple[Namespace, ExperimentConfig, Path]:
    """Parse the command line over the settings of a model's run, and find the model's directory.

    Raises:
        UserError: as `make_experiment` and `find_model_directory`.
    """
    options = parser.parse_args()
    directory = find_model_directory(options.checkpoint)
    experiment = directory / EXPERIMENT
    if experiment.is_file():
        recorded = settings_of_file(experiment)
    else:  # weights without a run record their clip only
        recorded = {f"clip.{name}": value for name, value in vars(read_model_config(directory).clip).items()}
    config = make_experiment(options.settings, recorded)
    return options, config, averaged(directory) if config.evaluation.averaged_weights else directory


def find_model_directory(path: Path) -> Path:
    """The directory with `model.safetensors` and `config.json` that `path` stands for.

    Raises:
        UserError: there is none, or a checkpoint is damaged.
    """
    existing_directory(path)
    if path.name == ".." or path.parent.name in ("", ".."):
        path = path.resolve()  # the run of a checkpoint is found by the folders above it
    if (path / CONFIG_FILE).is_file():
        problem = find_problem(path) if (path / EXPERIMENT).is_file() else None
        if problem:
            raise UserError(f"checkpoint {str(path)!r} is damaged: {problem}")
        return path
    newest = newest_valid(RunDirectory(path).checkpoints)
    if newest is None:
        raise UserError(f"{str(path)!r} holds no valid checkpoint and no {CONFIG_FILE}")
    return newest


def averaged(checkpoint: Path) -> Path:
    """The model directory with averaged weights where a checkpoint has one, else the checkpoint."""
    return checkpoint / EMA if (checkpoint / EMA / CONFIG_FILE).is_file() else checkpoint


def step_of(model_directory: Path) -> int | None:
    """Finished steps of a run's checkpoint, also of its averaged weights; None for any other model directory."""
    directory = model_directory.parent if model_directory.name == EMA else model_directory
    return checkpoint_step(directory) if directory in list_checkpoints(directory.parent) else None


def run_folder(model_directory: Path) -> Path:
    """The run that a checkpoint belongs to, or the model directory itself."""
    if model_directory.name == EMA:
        model_directory = model_directory.parent
    return model_directory.parents[1] if model_directory.parent.name == "checkpoints" else model_directory


class ClassOrder(nn.Module):
    """A model whose scores come in the order of the data's class names."""

    def __init__(self, model: nn.Module, order: list[int]) -> None:
        super().__init__()
        self.model = model
        self.order = order

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        """Logits [B, K] in the data's order."""
        logits_BK: Tensor = self.model(input_BTCHW)
        return logits_BK[:, self.order]


def load_for_classes(model_directory: Path, class_names: tuple[str, ...]) -> nn.Module:
    """The model, its scores in the order of `class_names`: classes are matched by name, never by number.

    Raises:
        UserError: the model was trained on other classes.
    """
    model, known = load_model_directory(model_directory)
    if model.num_classes != len(class_names):
        raise UserError(
            f"{model_directory} has {model.num_classes} classes and the data {len(class_names)}; "
            "allowed: a model and data of the same classes"
        )
    if not known or known == class_names:
        return model
    unknown = [name for name in class_names if name not in known]
    if unknown:
        raise UserError(f"{model_directory} does not know the class {unknown[0]!r}; {did_you_mean(unknown[0], known)}")
    return ClassOrder(model, [known.index(name) for name in class_names])
