"""The generated data set: repeatable, readable by the ordinary readers, and solvable by time alone."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kstest

from tests.annotations.sets import missing
from tests.refusals import refused
from vidtl.annotations.description import REPOSITORY_DATASETS, load_description, read_records
from vidtl.data.toy import SPLITS, ToySettings, _is_complete, make_toy, plan_video, render_video
from vidtl.data.toy_clip import MOTIONS, PERIOD, Segment, _states, render_clip
from vidtl.runtime.progress import Progress
from vidtl.runtime.seeding import generator

SINGLE = ToySettings(seed=3, videos_per_class_train=2, videos_per_class_val=1)
MULTI = ToySettings(seed=3, videos_per_class_train=2, videos_per_class_val=1, multi_label=True)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy")
    made = make_toy(root, SINGLE, Progress(visible=False), num_processes=1)
    assert made.created
    assert made.num_videos == {"train": 16, "val": 8}
    return root


@pytest.fixture(scope="module")
def multi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy_multilabel")
    make_toy(root, MULTI, Progress(visible=False), num_processes=1)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def decode(path: Path) -> tuple[NDArray[np.uint8], float]:
    with av.open(path) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return np.stack(frames), float(stream.average_rate)


def clip(motion: int, *keys: int, height: int = 48, width: int = 64, num_frames: int = 12) -> NDArray[np.uint8]:
    return render_clip(generator(0, *keys), height, width, 12, num_frames, [Segment(motion, 0, num_frames)])


def test_files_are_the_same_for_any_number_of_processes(single: Path, tmp_path: Path) -> None:
    make_toy(tmp_path / "again", SINGLE, Progress(visible=False), num_processes=2)
    assert contents(tmp_path / "again") == contents(single)


def test_another_seed_gives_other_videos_and_more_videos_keep_the_first() -> None:
    other = ToySettings(seed=4, videos_per_class_train=2, videos_per_class_val=1)
    larger = ToySettings(seed=3, videos_per_class_train=9, videos_per_class_val=1)
    plan = plan_video(SINGLE, "train", 5)
    assert plan_video(other, "train", 5) != plan
    assert plan_video(SINGLE, "val", 5).video_id != plan.video_id
    assert plan_video(larger, "train", 5) == plan
    assert not np.array_equal(render_video(plan, 3), render_video(plan, 4))


def test_single_label_set_is_read_as_kinetics(single: Path) -> None:
    description = load_description("toy")
    for split in SPLITS:
        records = read_records(description, split, single)
        assert records.classes.names == MOTIONS
        assert missing(records) == []
        assert (
            np.bincount(records.label_classes).tolist()
            == [SINGLE.videos_per_class_train if split == "train" else 1] * 8
        )


def test_multi_label_set_is_read_as_charades(multi: Path) -> None:
    description = load_description("toy_multilabel")
    records = read_records(description, "train", multi)
    assert records.classes.names == MOTIONS
    assert records.multi_label
    assert missing(records) == []
    for index in range(len(records)):
        video = plan_video(MULTI, "train", index)
        assert sorted(each.motion for each in video.segments) == records.labels(index).tolist()
        for segment in video.segments:
            middle = (segment.first + segment.last) / 2 / video.fps
            assert records.labels_between(index, middle, middle).tolist() == [segment.motion]
        assert records.labels_between(index, video.num_frames / video.fps + 0.01, 99).tolist() == []


def test_files_hold_what_was_drawn(single: Path) -> None:
    sizes, rates = set(), set()
    for index in range(16):
        video = plan_video(SINGLE, "train", index)
        frames, fps = decode(single / video.path)
        assert frames.shape == (24, video.height, video.width, 3)
        assert fps == video.fps
        sizes.add(frames.shape[1:3])
        rates.add(fps)
        drawn = render_video(video, SINGLE.seed)
        assert np.abs(frames.astype(int) - drawn).mean() < 6  # of 255: chroma at half size and mild compression
    assert len(sizes) > 1
    assert len(rates) == 2


def test_nothing_moves_outside_segments() -> None:
    for index in range(6):
        video = plan_video(MULTI, "train", index)
        frames = render_video(video, MULTI.seed).astype(int)
        changed = np.abs(np.diff(frames, axis=0)).max(axis=(1, 2, 3)) > 0
        expected = np.zeros(video.num_frames - 1, bool)
        for segment in video.segments:
            expected[segment.first : segment.last] = True
        assert changed.tolist() == expected.tolist()


def test_multi_label_videos_have_one_to_three_motions_in_order() -> None:
    counts = set()
    for index in range(60):
        video = plan_video(MULTI, "train", index)
        counts.add(len(video.segments))
        assert 48 <= video.num_frames <= 60
        limits = [limit for each in video.segments for limit in (each.first, each.last)]
        assert limits == sorted(limits)
        assert limits[0] >= 0
        assert limits[-1] <= video.num_frames
        assert len({each.motion for each in video.segments}) == len(video.segments)
    assert counts == {1, 2, 3}


def test_first_frames_do_not_depend_on_the_motion() -> None:
    firsts = [clip(motion, 1, num_frames=2) for motion in range(len(MOTIONS))]
    for other in firsts[1:]:
        assert np.array_equal(firsts[0][0], other[0])
        assert not np.array_equal(firsts[0][1], other[1])


@pytest.mark.parametrize("motion", range(len(MOTIONS)), ids=MOTIONS)
def test_place_angle_and_size_are_uniform_in_every_frame(motion: int) -> None:
    """So a frame has the same distribution for all classes: looks do not depend on the motion, and neither do these."""
    height, width, num_frames = 72, 96, 24
    draws = [
        _states(generator(0, motion, i), height, width, 12, num_frames, [Segment(motion, 0, num_frames)])
        for i in range(400)
    ]
    period = PERIOD * min(height, width)
    states = np.stack(draws) / [period, period, 1, 1]
    for frame in (0, 7, 16, 23):
        for column in range(4):
            assert kstest(states[:, frame, column], "uniform").pvalue > 1e-3 / 128  # 128 tests in all, fixed seeds


def test_a_complete_set_is_left_alone_and_a_damaged_one_made_anew(single: Path, tmp_path: Path) -> None:
    before = contents(single)
    times = {path: path.stat().st_mtime_ns for path in single.rglob("*.mp4")}
    assert not make_toy(single, SINGLE, Progress(visible=False), num_processes=1).created
    assert {path: path.stat().st_mtime_ns for path in single.rglob("*.mp4")} == times
    next(iter(times)).unlink()
    assert make_toy(single, SINGLE, Progress(visible=False), num_processes=1).created
    assert contents(single) == before
    marker = json.loads((single / "toy.json").read_text())
    (single / "toy.json").write_text(json.dumps({**marker, "complete": False}))
    assert make_toy(single, SINGLE, Progress(visible=False), num_processes=1).created
    assert contents(single) == before


@pytest.mark.parametrize("name", ["videos", "videos/val", "train.csv", "classes.txt"])
def test_a_set_that_lacks_files_is_not_complete(multi: Path, tmp_path: Path, name: str) -> None:
    root = Path(shutil.copytree(multi, tmp_path / "toy"))
    videos = [plan_video(MULTI, split, index) for split in SPLITS for index in range(8)]
    assert _is_complete(root, MULTI, videos)
    (root / name).rename(tmp_path / "elsewhere")
    assert not _is_complete(root, MULTI, videos)
    (tmp_path / "elsewhere").rename(root / name)
    (root / videos[3].path).write_bytes(b"")
    assert not _is_complete(root, MULTI, videos)


def test_a_directory_that_cannot_be_made_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with refused("file/toy", "Not a directory"):
        make_toy(tmp_path / "file/toy", SINGLE, Progress(visible=False))


def test_directories_with_anything_else_are_refused(single: Path, tmp_path: Path) -> None:
    before = contents(single)
    with refused("seed 3", "not 4"):
        make_toy(single, ToySettings(seed=4, videos_per_class_train=2, videos_per_class_val=1), Progress(visible=False))
    with refused("multi_label False", "not True"):
        make_toy(single, MULTI, Progress(visible=False))
    assert contents(single) == before
    (tmp_path / "thesis.tex").touch()
    with refused(tmp_path, "not a toy set"):
        make_toy(tmp_path, SINGLE, Progress(visible=False))
    with refused(tmp_path, "not a toy set"):
        make_toy(tmp_path / "thesis.tex", SINGLE, Progress(visible=False))
    (tmp_path / "toy.json").write_text("[]")
    with refused(tmp_path, "not a toy set"):
        make_toy(tmp_path, SINGLE, Progress(visible=False))


def test_impossible_settings_are_refused() -> None:
    with refused("videos_per_class_val"):
        ToySettings(videos_per_class_val=0)
    with refused("seed is -1"):
        ToySettings(seed=-1)


def test_the_tool_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*options: str) -> tuple[int, str, str]:
        arguments = [str(tmp_path / "new"), "--videos_per_class_train", "1", "--videos_per_class_val", "1"]
        monkeypatch.setattr(sys, "argv", ["make_toy.py", *arguments, "--num_processes", "1", *options])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(REPOSITORY_DATASETS.parent / "tools" / "make_toy.py"), run_name="__main__")
        return int(str(ended.value)), *capsys.readouterr()

    code, said, _ = run()
    assert code == 0
    assert "8 train and 8 val videos" in said
    assert "made in" in said
    code, said, _ = run()
    assert code == 0
    assert "already there" in said
    for options, message in (["--seed", "1"], "seed 0, not 1"), (["--sed", "1"], "--sed"):
        code, _, told = run(*options)
        assert code == 2
        assert message in told
        assert told.count("\n") == 1
