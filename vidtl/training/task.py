"""The task of every run: clips of a data set in, the class (or classes) of their videos out."""

from pathlib import Path

from accelerate import Accelerator
from torch import Tensor, nn

from vidtl.config import ExperimentConfig
from vidtl.data.augmentation import batch_input
from vidtl.data.batch import ClipBatch
from vidtl.data.loader import TrainLoader
from vidtl.data.records import Records
from vidtl.models.hub import save_model_directory
from vidtl.training.step import TrainingTask


def video_task(records: Records, config: ExperimentConfig, accelerator: Accelerator) -> TrainingTask:
    """What `vidtl.training.loop.train` needs to know about the training split.

    Raises:
        UserError: the global batch cannot be shared evenly by the processes and accumulation steps.
    """

    def make_input(batch: ClipBatch) -> Tensor:
        return batch_input(batch, config.clip, config.augmentation)

    def save_model(model: nn.Module, directory: Path) -> None:
        save_model_directory(model, directory, records.classes.names)

    return TrainingTask(
        loader=TrainLoader(records, config, accelerator.process_index, accelerator.num_processes),
        make_input=make_input,
        num_classes=len(records.classes),
        multi_label=records.multi_label,
        save_model=save_model,
    )
