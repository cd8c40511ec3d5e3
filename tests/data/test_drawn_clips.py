"""What is drawn for a clip depends on where it stands alone: repeated clips, changes, mixing and rules for frames."""

import dataclasses
import itertools
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorchvideo.data.clip_sampling import make_clip_sampler

from vidtl.config import (
    AUGMENTATION_PRESETS,
    AugmentationConfig,
    ClipConfig,
    DataConfig,
    ExperimentConfig,
    TrainingConfig,
)
from vidtl.data import dataset as dataset_module
from vidtl.data.augmentation import batch_input
from vidtl.data.clip_samplers import FRAME_RULES, sampler_rule
from vidtl.data.dataset import ClipDataset, ClipKey
from vidtl.data.description import load_description, read_records
from vidtl.data.loader import TrainLoader
from vidtl.data.records import Records
from vidtl.data.sampling import train_box, train_indices
from vidtl.data.toy import ToySettings, make_toy
from vidtl.errors import UserError
from vidtl.runtime.progress import make_progress
from vidtl.runtime.seeding import generator
from vidtl.video import View, open_video

CONFIG = ExperimentConfig(
    data=DataConfig(num_workers=0),
    clip=ClipConfig(num_frames=8, stride=2, frame_size=(32, 32), short_side=36),
    augmentation=AugmentationConfig(colour_probability=0.5, flip_probability=0.5),
    training=TrainingConfig(batch_size=6),
)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    root = tmp_path_factory.mktemp("toy")
    settings = ToySettings(seed=1, videos_per_class_train=2, videos_per_class_val=1)
    make_toy(root, settings, make_progress(is_main_process=False), num_processes=1)
    return read_records(load_description("toy"), "train", root)


def test_repeated_clips_are_those_of_separate_reads(records: Records) -> None:
    single = dataclasses.replace(CONFIG, augmentation=AugmentationConfig(colour_probability=1.0))
    config = dataclasses.replace(CONFIG, augmentation=AugmentationConfig(colour_probability=1.0, repeats=3))
    for index in range(4):
        clips = ClipDataset(records, config)[ClipKey(2, index, 1.0)]
        assert len(clips) == 3
        assert len({clip.pixels.tobytes() for clip in clips}) == 3
        assert len({clip.augmentation for clip in clips}) == 3
        first = ClipDataset(records, single)[ClipKey(2, index, 1.0)]
        assert len(first) == 1
        assert np.array_equal(clips[0].pixels, first[0].pixels)
        assert clips[0].augmentation == first[0].augmentation
        with open_video(records.path(index), root=records.root) as video:
            for view, clip in enumerate(clips):
                rng = generator(0, 2, index, view, 0)
                frames = train_indices(len(video.times_s), 8, 2, rng, "loop")
                box = train_box(video.height, video.width, config.augmentation, config.clip, rng)
                alone = video.read([View(frames, box)], (32, 32), "planar")[0]
                assert np.array_equal(clip.pixels, alone)


def test_repeated_clips_lie_next_to_each_other_and_count_once(records: Records) -> None:
    config = dataclasses.replace(CONFIG, augmentation=dataclasses.replace(CONFIG.augmentation, repeats=2))
    loader = TrainLoader(records, config, 0, 1)
    batches = list(itertools.islice(loader.iterate(), loader.steps_per_epoch))
    videos = [key.record for step in range(loader.steps_per_epoch) for key in loader.keys(step, 0)]
    targets = torch.cat([batch.targets for batch in batches]).reshape(len(videos), 2, -1)
    weights = torch.cat([batch.weights for batch in batches])
    for video, pair in zip(videos, targets.numpy(), strict=True):
        assert np.array_equal(pair, [records.targets(video)] * 2)
    asked = [video for video, weight in zip(videos, weights[::2], strict=True) if weight > 0]
    assert sorted(asked) == list(range(len(records)))
    assert weights.sum() == loader.samples_per_epoch == 2 * len(records)
    assert all(len(batch.targets) == len(batch.augmentation) == 6 for batch in batches)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_everything_drawn_depends_on_the_position_alone(records: Records, num_workers: int) -> None:
    """From the middle of an epoch on: pixels, changes and mixing are those of the unbroken run, and so is the input."""
    augmentation = dataclasses.replace(AUGMENTATION_PRESETS["videomae_kinetics"], colour_probability=0.5)
    config = dataclasses.replace(CONFIG, augmentation=augmentation)
    unbroken = TrainLoader(records, config, 0, 1)
    expected = list(itertools.islice(unbroken.iterate(), 5))[3:]
    workers = dataclasses.replace(config, data=dataclasses.replace(config.data, num_workers=num_workers))
    batches = list(itertools.islice(TrainLoader(records, workers, 0, 1).iterate(3), 2))
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch.pixels, other.pixels)
        assert batch.augmentation == other.augmentation
        assert batch.mixing == other.mixing
        assert batch.mixing is not None
        for first, second in zip(batch_input(batch, config.clip), batch_input(other, config.clip), strict=True):
            assert torch.equal(first, second)
        assert any(clip.operations for clip in batch.augmentation)


def test_mixed_batches_leave_padding_out(records: Records) -> None:
    augmentation = AugmentationConfig(mixup_alpha=0.8, repeats=2)
    config = dataclasses.replace(CONFIG, augmentation=augmentation, training=TrainingConfig(batch_size=12))
    loader = TrainLoader(records, config, 0, 1)
    last = next(loader.iterate(loader.steps_per_epoch - 1))
    real = int(last.weights.sum())
    assert 1 < real < 12
    assert last.mixing is not None
    assert last.mixing.partners == (*reversed(range(real)), *range(real, 12))


@pytest.mark.parametrize("sampling", ["segments", "pytorchvideo_random"])
def test_frames_by_the_rule_that_the_configuration_names(records: Records, sampling: str) -> None:
    config = dataclasses.replace(CONFIG, clip=dataclasses.replace(CONFIG.clip, sampling=sampling))
    rule = FRAME_RULES[sampling]
    clip = ClipDataset(records, config)[ClipKey(0, 1, 1.0)][0]
    with open_video(records.path(1), root=records.root) as video:
        rng = generator(0, 0, 1, 0, 0)
        frames = rule(video.times_s, config.clip, rng)
        box = train_box(video.height, video.width, config.augmentation, config.clip, rng)
        assert np.array_equal(clip.pixels, video.read([View(frames, box)], (32, 32), "planar")[0])


def test_a_sampler_of_pytorchvideo_in_place_of_the_configured_rule(records: Records) -> None:
    sampler = make_clip_sampler("constant_clips_per_video", 0.5, 2)
    loader = TrainLoader(records, CONFIG, 0, 1, frame_rule=sampler_rule(sampler))
    batch, again = (next(loader.iterate()) for _ in range(2))
    assert torch.equal(batch.pixels, again.pixels)
    assert not torch.equal(batch.pixels, next(TrainLoader(records, CONFIG, 0, 1).iterate()).pixels)


def test_a_hanging_video_is_named(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(
        CONFIG,
        data=DataConfig(num_workers=1, worker_timeout_s=5.0),
        augmentation=AugmentationConfig(repeats=3),
        training=TrainingConfig(batch_size=3),
    )
    loader = TrainLoader(records, config, 0, 1)
    hanging = loader.keys(3, 0)[0].record
    opened = dataset_module.open_record

    def hang(records: Records, index: int, *arguments: object) -> object:
        if index == hanging:
            time.sleep(60)
        return opened(records, index, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(dataset_module, "open_record", hang)
    batches = loader.iterate()
    for _ in range(3):
        assert len(next(batches).weights) == 3
    named = f"worker failed at or near {re.escape(records.paths[hanging])} .*timed out after 5"
    with pytest.raises(UserError, match=named):
        next(batches)


def test_replaced_clips_are_told_with_their_classes(records: Records, tmp_path: Path) -> None:
    shutil.copytree(records.root, tmp_path / "copy")
    broken = dataclasses.replace(records, root=tmp_path / "copy")
    name = broken.classes.names[broken.labels(0)[0]]
    for index in broken.with_labels(broken.labels(0)):
        broken.path(int(index)).write_bytes(b"no video")  # the whole class
    config = dataclasses.replace(CONFIG, augmentation=AugmentationConfig(repeats=2))
    first, second = ClipDataset(broken, config)[ClipKey(0, 0, 1.0)]
    assert second.failures == []
    assert [(failure.classes, failure.attempt) for failure in first.failures] == [((name,), 0), ((name,), 1)]
