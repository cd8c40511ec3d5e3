"""Records to batches, on really encoded files: what is read, what is drawn, and what stands in for a broken file."""

import dataclasses
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from vidtl.config import AugmentationConfig, ClipConfig, DataConfig, ExperimentConfig, TrainingConfig
from vidtl.data import loader as loader_module
from vidtl.data.augmentation import batch_input
from vidtl.data.dataset import ClipDataset, ClipKey, ViewDataset, check_readable, collate, first_records
from vidtl.data.description import load_description, read_records
from vidtl.data.loader import EvalLoader, TrainLoader
from vidtl.data.protocols import get_protocol, view_boxes
from vidtl.data.records import Records
from vidtl.data.sampling import train_box
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


def made(folder: Path, multi_label: bool) -> Path:
    settings = ToySettings(seed=1, videos_per_class_train=2, videos_per_class_val=1, multi_label=multi_label)
    make_toy(folder, settings, make_progress(is_main_process=False), num_processes=1)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("single"), multi_label=False)


@pytest.fixture(scope="module")
def multi_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("multi"), multi_label=True)


@pytest.fixture
def records(root: Path) -> Records:
    return read_records(load_description("toy"), "train", root)


def with_data(**changes: object) -> ExperimentConfig:
    return dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, **changes))


def with_clip(**changes: object) -> ExperimentConfig:
    return dataclasses.replace(CONFIG, clip=dataclasses.replace(CONFIG.clip, **changes))


def test_a_batch_is_uint8_until_the_device(records: Records) -> None:
    batch = next(TrainLoader(records, CONFIG, 0, 1).iterate())
    assert (batch.pixels.dtype, batch.pixels.shape) == (torch.uint8, (6, 8, 48, 32))
    assert (batch.targets.dtype, batch.targets.shape) == (torch.float32, (6, 8))
    assert batch.targets.sum(dim=1).eq(1).all()
    assert batch.weights.dtype == torch.float32
    assert batch.failures == []
    input_BTCHW, targets_BK = batch_input(batch, CONFIG.clip)
    assert targets_BK is batch.targets
    assert (input_BTCHW.dtype, input_BTCHW.shape) == (torch.float32, (6, 8, 3, 32, 32))
    assert input_BTCHW.abs().max() <= 1


def test_planes_and_rgb_show_the_same_clip(records: Records) -> None:
    key = ClipKey(0, 3, 1.0)
    clips = [ClipDataset(records, with_data(pixel_format=name))[key][0] for name in ("planar", "rgb")]
    assert clips[1].pixels.shape == (8, 32, 32, 3)
    inputs = []
    for clip in clips:
        inputs.append(batch_input(collate([[clip]]), CONFIG.clip)[0])
    # Planar boxes lie on even pixels, and a shift of one pixel shows at 32 x 32.
    difference = (inputs[0] - inputs[1]).abs().mean()
    assert difference < 0.1
    assert (inputs[0] - inputs[1].flip(1)).abs().mean() > difference


@pytest.mark.parametrize("num_workers", [0, 2])
def test_clips_depend_on_seed_epoch_and_record_alone(records: Records, num_workers: int) -> None:
    loader = TrainLoader(records, with_data(num_workers=num_workers), 0, 1)
    reference = TrainLoader(records, CONFIG, 0, 1)
    start = 4  # the second epoch: nothing before it is decoded
    batches = [batch for batch, _ in zip(loader.iterate(start), range(2), strict=False)]
    expected = list(itertools.islice(reference.iterate(0), start, start + 2))
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch.pixels, other.pixels)
        assert batch.augmentation == other.augmentation
        assert torch.equal(batch.targets, other.targets)
    first, second = (ClipDataset(records, CONFIG)[ClipKey(epoch, 0, 1.0)][0] for epoch in (0, 1))
    assert not np.array_equal(first.pixels, second.pixels)


def test_a_broken_video_is_replaced_by_one_of_its_class_and_told(records: Records, tmp_path: Path) -> None:
    shutil.copytree(records.root, tmp_path / "copy")
    broken = dataclasses.replace(records, root=tmp_path / "copy")
    broken.path(0).write_bytes(broken.path(0).read_bytes()[:100])
    clips = [ClipDataset(broken, CONFIG)[ClipKey(epoch, 0, 1.0)][0] for epoch in (0, 0, 1)]
    assert np.array_equal(clips[0].pixels, clips[1].pixels)
    for clip in clips:
        assert np.array_equal(clip.targets, records.targets(0))
        assert [failure.path for failure in clip.failures] == [records.paths[0]]
    for path in {broken.path(i) for i in range(len(broken))}:
        path.write_bytes(b"no video")
    with pytest.raises(UserError, match="none of 11 videos tried for one clip could be read") as told:
        ClipDataset(broken, CONFIG)[ClipKey(0, 0, 1.0)]
    assert "\n" not in str(told.value)
    with pytest.raises(UserError, match="none of 11 videos tried for one clip could be read"):
        next(TrainLoader(broken, dataclasses.replace(CONFIG, data=DataConfig(num_workers=1)), 0, 1).iterate())
    with pytest.raises(UserError, match="none of 8 videos tried"):
        check_readable(broken, CONFIG)
    view = ViewDataset(broken, CONFIG, get_protocol("center"))[2]
    assert view.pixels is None
    assert view.failure is not None
    assert view.failure.path == records.paths[2]


def test_a_class_that_is_used_up_is_replaced_by_any_other(records: Records, tmp_path: Path) -> None:
    shutil.copytree(records.root, tmp_path / "copy")
    records = dataclasses.replace(records, root=tmp_path / "copy")
    first, second = records.with_labels(records.labels(0)).tolist()
    for index in (first, second):
        records.path(index).write_bytes(b"no video")
    for epoch in range(5):
        (clip,) = ClipDataset(records, CONFIG)[ClipKey(epoch, first, 1.0)]
        assert [failure.record for failure in clip.failures] == [first, second]
        assert not np.array_equal(clip.targets, records.targets(first))


def test_substitutes_come_once_each_in_an_order_of_the_key(records: Records) -> None:
    dataset = ClipDataset(records, CONFIG)
    keys = [ClipKey(epoch, record, 1.0) for epoch in (0, 1) for record in (0, 3)]
    orders = [list(dataset._substitutes(key)) for key in keys]
    for key, order in zip(keys, orders, strict=True):
        assert sorted([key.record, *order]) == list(range(len(records)))
        assert {key.record, order[0]} == set(records.with_labels(records.labels(key.record)))  # two of each class
    assert len(set(map(tuple, orders))) == len(keys)
    assert [list(dataset._substitutes(key)) for key in keys] == orders


def test_only_so_many_files_are_looked_for(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root that is not mounted would else be asked for every file, by each worker."""
    monkeypatch.setattr("vidtl.data.dataset._MOST_LOOKED_AT", 1)
    assert len(list(ClipDataset(records, CONFIG)._substitutes(ClipKey(0, 0, 1.0)))) == 2


def test_missing_videos_cost_no_attempt(records: Records, tmp_path: Path) -> None:
    shutil.copytree(records.root, tmp_path / "copy")
    records = dataclasses.replace(records, root=tmp_path / "copy")
    for index in set(range(len(records))) - {5}:
        records.path(index).unlink()
    (clip,) = ClipDataset(records, with_data(max_substitutions=1))[ClipKey(0, 0, 1.0)]
    assert [failure.record for failure in clip.failures] == [0]
    assert np.array_equal(clip.targets, records.targets(5))


def test_failures_of_videos_that_fill_up_a_batch_are_not_told(records: Records, tmp_path: Path) -> None:
    shutil.copytree(records.root, tmp_path / "copy")
    records = dataclasses.replace(records, root=tmp_path / "copy")
    loader = TrainLoader(records, dataclasses.replace(CONFIG, training=TrainingConfig(batch_size=24)), 0, 1)
    keys = loader.keys(0, 0)  # 16 videos, the first 8 of them twice
    broken = keys[0].record
    assert [key.weight for key in keys if key.record == broken] == [1, 0]
    records.path(broken).write_bytes(b"no video")
    batch = next(loader.iterate())
    assert [failure.record for failure in batch.failures] == [broken]


@pytest.mark.parametrize("pixel_format", ["planar", "rgb"])
def test_a_batch_is_filled_up_where_nothing_can_be_read(records: Records, tmp_path: Path, pixel_format: str) -> None:
    config = dataclasses.replace(
        with_data(pixel_format=pixel_format), augmentation=dataclasses.replace(CONFIG.augmentation, repeats=2)
    )
    real = ClipDataset(records, config)[ClipKey(0, 0, 1.0)]
    blank = ClipDataset(dataclasses.replace(records, root=tmp_path), config)[ClipKey(0, 1, 0.0)]
    assert [clip.failures for clip in blank] == [[], []]
    batch = collate([real, blank])
    assert batch.weights.tolist() == [1, 1, 0, 0]
    assert not batch.pixels[2:].any()


def test_clip_labels_are_those_of_the_clip(multi_root: Path) -> None:
    records = read_records(load_description("toy_multilabel"), "train", multi_root)
    dataset = ClipDataset(records, CONFIG)
    seen = np.stack([[dataset[ClipKey(epoch, i, 1.0)][0].targets for i in range(len(records))] for epoch in range(4)])
    whole = records.video_targets()
    assert (seen <= whole).all()
    assert seen.mean() < whole.mean()  # a clip of 15 frames misses some of the motions of 40 frames and more


# What a player at 6 frames per second shows of 24 frames.
AT_6_FPS = {
    15: [0, 2, 5, 7, 10, 12, 15, 17, 20, 22],
    12: [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22],
}


@pytest.mark.parametrize(("index", "fps"), [(0, 15), (1, 12)])
def test_target_fps_takes_frames_by_time(records: Records, index: int, fps: int) -> None:
    shown = AT_6_FPS[fps]
    view_config = with_clip(target_fps=6, stride=1, num_frames=8)
    clip_config = with_clip(target_fps=6, stride=1, num_frames=len(shown))  # all of them: there is one start
    protocol = get_protocol("center")
    view = ViewDataset(records, view_config, protocol)[index]
    (clip,) = ClipDataset(records, clip_config)[ClipKey(0, index, 1.0)]
    with open_video(records.path(index), root=records.root) as video:
        assert video.fps == pytest.approx(fps)
        start = {15: 1, 12: 2}[fps]
        (box,) = view_boxes(protocol, video.height, video.width, view_config.clip)
        expected = video.read([View(np.array(shown[start : start + 8]), box)], (32, 32), "planar")
        assert np.array_equal(view.pixels, expected)
        rng = generator(0, 0, index, 0, 0)
        rng.random()  # the start
        box = train_box(video.height, video.width, clip_config.augmentation, clip_config.clip, rng)
        expected = video.read([View(np.array(shown), box)], (32, 32), "planar")
        assert np.array_equal(clip.pixels, expected[0])


def test_segments_bound_the_frames(records: Records) -> None:
    half = dataclasses.replace(
        records, segment_starts_s=np.full(len(records), 0.8), segment_ends_s=np.full(len(records), 1.2)
    )
    hold = with_clip(short_video="hold", stride=1)
    pixels = ViewDataset(half, hold, get_protocol("center"))[0].pixels
    assert pixels is not None
    distinct = {frame.numpy().tobytes() for frame in pixels[0]}
    assert 3 <= len(distinct) <= 7  # 0.4 s at 12 or 15 frames per second, the last one held
    late = dataclasses.replace(records, segment_starts_s=np.full(len(records), 99.0))
    failure = ViewDataset(late, CONFIG, get_protocol("center"))[0].failure
    assert failure is not None
    assert "no frame between 99 s" in failure.reason


def test_a_protocol_that_does_not_suit_the_model_is_told(records: Records, caplog: pytest.LogCaptureFixture) -> None:
    ViewDataset(records, CONFIG, get_protocol("vivit_4x3"))
    assert not caplog.records
    ViewDataset(records, CONFIG, get_protocol("videomae_ssv2_2x3"))
    assert "videomae_ssv2_2x3 takes segments of a video, but clip.sampling is random_span" in caplog.text


def test_views_come_from_workers_without_a_copy_through_a_pipe(records: Records) -> None:
    protocol = get_protocol("vivit_4x3")
    alone, sent = (next(iter(EvalLoader(records, with_data(num_workers=count), protocol))) for count in (0, 1))
    assert alone.pixels is not None
    assert sent.pixels is not None
    assert torch.equal(sent.pixels, alone.pixels)
    assert sent.pixels.is_shared() or sent.pixels.is_pinned()  # pinned on arrival where there is a GPU


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_evaluation_reads_every_video_once(records: Records, processes: int) -> None:
    some = first_records(records, 7)
    protocol = get_protocol("center")
    config = with_data(num_workers=2 if processes == 2 else 0)
    loaders = [EvalLoader(some, config, protocol, range(index, 7, processes)) for index in range(processes)]
    indices = [video.index for loader in loaders for video in loader]
    assert sorted(indices) == list(range(7))
    assert sum(map(len, loaders)) == 7


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("missing", [[], [0], [1, 2], [5, 6], range(7)])
def test_small_videos_come_in_batches_and_as_they_are(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, missing: list[int]
) -> None:
    shutil.copytree(root, tmp_path / "some")
    some = first_records(read_records(load_description("toy"), "train", tmp_path / "some"), 7)
    for index in missing:
        some.path(index).unlink()
    monkeypatch.setattr(loader_module, "_BATCHES_PER_WORKER", 1)
    protocol, config = get_protocol("center"), with_data(num_workers=workers)
    loader, dataset = EvalLoader(some, config, protocol), ViewDataset(some, config, protocol)
    assert loader.videos_per_batch() == (3 if workers else 7)
    for video, index in zip(loader, range(7), strict=True):
        alone = dataset[index]
        assert (alone.pixels is None) == (index in missing)
        if video.pixels is not None and alone.pixels is not None:
            assert torch.equal(video.pixels, alone.pixels)
            alone = dataclasses.replace(alone, pixels=video.pixels)
        assert video == alone


@pytest.mark.parametrize(
    ("count", "workers", "num_frames", "protocol", "videos"),
    [
        (10_000, 2, 1, "center", 32),
        (100, 2, 1, "center", 6),
        (15, 2, 1, "center", 1),
        (10_000, 0, 32, "center", 21),  # 32 x 32 x 48 bytes each
        (10_000, 2, 32, "vivit_4x3", 1),
    ],
)
def test_batches_of_videos_are_small_and_leave_no_worker_out(
    records: Records, count: int, workers: int, num_frames: int, protocol: str, videos: int
) -> None:
    clip = dataclasses.replace(CONFIG.clip, num_frames=num_frames)
    config = dataclasses.replace(with_data(num_workers=workers), clip=clip)
    assert EvalLoader(records, config, get_protocol(protocol), range(count)).videos_per_batch() == videos
