"""What a training run is made of: reading clips, and optimizer steps; measured apart, then put together."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vidtl.benchmark.rounds import seconds_of
from vidtl.config import ExperimentConfig
from vidtl.data.batch import ClipBatch, batch_input
from vidtl.data.description import load_description, read_records
from vidtl.data.loader import TrainLoader
from vidtl.data.records import Records
from vidtl.data.toy import encode_video
from vidtl.data.toy_clip import Segment, render_clip
from vidtl.models import VideoModel
from vidtl.prepare.scan import ScanJob, scan_file
from vidtl.prepare.transcode import CopyJob, CopySettings, copy_video
from vidtl.runtime.seeding import generator
from vidtl.training.prefetch import DeviceBatches
from vidtl.training.step import Engine, TrainingTask

KINETICS_VIDEOS = 240_000
KINETICS_EPOCHS = 30
"""The run that is projected."""

SHARE_GOAL = 0.05
"""Largest share of a step that clipping, optimizer and averaging may take together, for B/16x2 at 8 clips a step."""

MFU_GOAL = 0.40

_PRODUCT = (4096, 768, 3072)
"""Rows, inner and outer width of the product that a CPU's speed is judged by."""


@dataclass(frozen=True, kw_only=True)
class TrainingTimes:
    """Medians over the rounds. On a CPU all are CPU seconds of one thread's work, on a GPU steps are the device's."""

    batch: int
    """Clips per step of one device."""
    read_s: float
    """CPU seconds to read, crop and collate one clip."""
    step_s: float
    """One optimizer step: input on the device, forward, backward, update."""
    update_s: float
    """Of it: clipping, optimizer and averaged weights."""
    multiply_adds: int
    """Of one clip's forward pass; a step counts three times as many."""
    peak: float
    """FLOP/s: a GPU's data sheet, or the matrix product of the same run."""

    @property
    def update_share(self) -> float:
        return self.update_s / self.step_s

    @property
    def utilisation(self) -> float:
        """Model FLOPs utilisation (MFU): what a step's multiply-adds would take at the peak, over what it takes."""
        return 6 * self.multiply_adds * self.batch / self.step_s / self.peak


@dataclass(frozen=True, kw_only=True)
class Projection:
    """A whole run on this machine, in clips per second."""

    reading: float
    """What all cores can read when they do nothing else."""
    computing: float
    """What all devices can compute."""
    together: float
    """The run: the lower of both, or, where the CPU does both, their share of the same cores."""

    @property
    def limit(self) -> str:
        """`reading` or `computing`."""
        return "reading" if self.reading < self.computing else "computing"

    @property
    def kinetics_hours(self) -> float:
        """Kinetics-400 for 30 epochs."""
        return KINETICS_VIDEOS * KINETICS_EPOCHS / self.together / 3600


def project(times: TrainingTimes, cores: int, gpus: int) -> Projection:
    """What `cores` cores and `gpus` GPUs (0: the cores compute too) make of it, if nothing else holds them up."""
    reading = cores / times.read_s
    computing = max(gpus, 1) * times.batch / times.step_s * (1 if gpus else cores)
    together = min(reading, computing) if gpus else 1 / (1 / reading + 1 / computing)
    return Projection(reading=reading, computing=computing, together=together)


def write_videos(folder: Path, num_classes: int, num_videos: int = 2) -> Records:
    """Videos of Kinetics' usual shape, 10 seconds of 340 x 256 pixels at 25 frames per second, as a data set."""
    for number in range(num_videos):
        rng = generator(0, number)
        motions = [Segment(int(rng.integers(8)), first, first + 49) for first in range(0, 250, 50)]
        encode_video(folder / f"{number}.mp4", render_clip(rng, 256, 340, 25, 250, motions), 25)
    classes = [f"class {number}" for number in range(num_classes)]
    (folder / "classes.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
    rows = [
        "path,label,split",
        *(f"{number}.mp4,{classes[number % num_classes]},train" for number in range(num_videos)),
    ]
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "dataset.yaml").write_text(
        "name: generated\ntitle: generated\nformat: labelled_csv\nlabels: single\nclasses: classes.txt\n"
        "splits:\n  train: {annotations: labels.csv, value: train}\n"
        "columns: {path: path, label: label, split: split}\n",
        encoding="utf-8",
    )
    return read_records(load_description(str(folder)), "train", folder)


def prepare_videos(folder: Path) -> Records:
    """The videos of `write_videos` as copies that decode fast, made as `tools/prepare.py --transcode` makes them."""
    copies = folder / "copies"
    for video in sorted(folder.glob("*.mp4")):
        copy_video(
            CopyJob(folder, scan_file(ScanJob(folder, video.name, "packets")), copies, video.name, CopySettings())
        )
    shutil.copyfile(folder / "labels.csv", copies / "labels.csv")
    return read_records(load_description(str(folder)), "train", copies)


def time_reading(loader: TrainLoader, rounds: int) -> tuple[list[float], ClipBatch]:
    """CPU seconds per clip of `rounds` batches, one before to warm up, read in this process; and the last batch."""
    seconds, batch = [], None
    batches = loader.iterate(0)
    for _ in range(rounds + 1):
        begin = time.process_time()
        batch = next(batches)
        seconds.append((time.process_time() - begin) / len(batch.weights))
    assert batch is not None
    return seconds[1:], batch


def time_steps(engine: Engine, batch: ClipBatch, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of whole steps on one batch, and of their last part: clipping, optimizer, average."""
    device = engine.accelerator.device
    rate = engine.learning_rate.peak * 1e-3  # the same batch over and over must not blow up
    batches: Iterator[ClipBatch] = repeat(batch)
    ahead = DeviceBatches(batches, device)

    def step() -> None:
        engine.step(1, rate, ahead)

    zero = torch.zeros((), device=device)
    gradients: list[tuple[nn.Parameter, Tensor]] = []

    def update() -> None:
        for parameter, gradient in gradients:
            parameter.grad = gradient
        engine.update(1, rate, zero)

    steps, updates = [], []
    for _ in range(rounds + 1):
        steps.append(seconds_of(step, device))
        gradients += [(p, torch.full_like(p, 1e-4)) for p in engine.model.parameters() if p.requires_grad]
        updates.append(seconds_of(update, device))
        gradients.clear()
    return steps[1:], updates[1:]


def make_engine(model: VideoModel, config: ExperimentConfig, records: Records, accelerator: Accelerator) -> Engine:
    """An engine as `tools/train.py` makes it, for one process; the head does not start at 0, where gradients are."""
    nn.init.normal_(model.classifier()[1].weight, std=0.02)
    task = TrainingTask(
        loader=TrainLoader(records, config, 0, 1),
        make_input=partial(batch_input, clip=config.clip),
        num_classes=len(records.classes),
        multi_label=records.multi_label,
        save_model=_save_nothing,
    )
    return Engine(model, config, accelerator, task)


def _save_nothing(model: nn.Module, directory: Path) -> None:
    """A benchmark writes no checkpoints."""


def product_speed(dtype: torch.dtype, rounds: int) -> float:
    """FLOP/s of a matrix product on the CPU, the fastest round."""
    rows, inner, outer = _PRODUCT
    left, right = torch.ones(rows, inner, dtype=dtype), torch.ones(inner, outer, dtype=dtype)
    out = left @ right
    device = torch.device("cpu")
    seconds = [seconds_of(lambda: torch.mm(left, right, out=out), device) for _ in range(rounds + 1)]
    return 2 * rows * inner * outer / min(seconds[1:])
