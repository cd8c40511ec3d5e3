"""Toy sets of 16 videos, and datasets and loaders of them."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from toy_set import ToySettings, make_toy

from vidtl.annotations.description import load_description, read_records
from vidtl.annotations.records import Records
from vidtl.config import AugmentationConfig, ClipConfig, DataConfig, ExperimentConfig, TrainingConfig
from vidtl.data.batch import VideoViews
from vidtl.data.dataset import ClipDataset, ViewDataset
from vidtl.data.loader import EvalLoader
from vidtl.data.protocols import get_protocol
from vidtl.runtime.progress import Progress

CONFIG = ExperimentConfig(
    data=DataConfig(num_workers=0),
    clip=ClipConfig(num_frames=8, stride=2, frame_size=(32, 32), short_side=36),
    augmentation=AugmentationConfig(color_jitter_probability=0.5, flip_probability=0.5),
    training=TrainingConfig(batch_size=6),
)
SINGLE = ToySettings(seed=1, videos_per_class_train=2, videos_per_class_val=1)
MULTI = dataclasses.replace(SINGLE, multi_label=True)


def config_with(section: str, **changes: object) -> ExperimentConfig:
    changed = dataclasses.replace(getattr(CONFIG, section), **changes)
    return dataclasses.replace(CONFIG, **{section: changed})


def clips_of(records: Records, config: ExperimentConfig = CONFIG) -> ClipDataset:
    return ClipDataset(records, config.data, config.clip, config.augmentation, config.training.seed)


def view_of(records: Records, index: int, config: ExperimentConfig = CONFIG) -> VideoViews:
    (video,) = ViewDataset(records, get_protocol("center"), config.clip, config.data).__getitems__([index])
    return video


def eval_loader(records: Records, **data: Any) -> EvalLoader:
    return EvalLoader(records, get_protocol("center"), CONFIG.clip, config_with("data", **data).data)


def make_records(root: Path, settings: ToySettings, name: str) -> Records:
    make_toy(root, settings, Progress(visible=False), num_processes=1)
    return read_records(load_description(name), "train", root)


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    return make_records(tmp_path_factory.mktemp("single"), SINGLE, "toy")


@pytest.fixture(scope="session")
def multi_records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    return make_records(tmp_path_factory.mktemp("multi"), MULTI, "toy_multilabel")


@pytest.fixture
def copied(records: Records, tmp_path: Path) -> Records:
    """A copy of the set whose files a test may break."""
    shutil.copytree(records.root, tmp_path / "copy")
    return dataclasses.replace(records, root=tmp_path / "copy")
