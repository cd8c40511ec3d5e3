"""The generated data set: repeatable, readable by the ordinary readers, and solvable by motion alone."""

import json
from dataclasses import replace

import av
import numpy as np
import pytest
from make_toy import main
from scipy.stats import kstest
from toy_clip import MOTIONS, PERIOD, Segment, _states, render_clip
from toy_leader import render_leader
from toy_set import ToySettings, make_toy, plan_video, render_video

from tests.annotations.sets import missing, names
from tests.data.conftest import MULTI, SINGLE
from tests.refusals import assert_refusal, refused
from vidtl.annotations.description import load_description, read_records
from vidtl.runtime.progress import Progress
from vidtl.runtime.seeding import generator


def make(root, settings=SINGLE, num_processes=1):
    return make_toy(root, settings, Progress(visible=False), num_processes)


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_files_are_the_same_for_any_number_of_processes(records, tmp_path):
    assert make(tmp_path / "again", num_processes=2)
    assert contents(tmp_path / "again") == contents(records.root)


def test_another_seed_gives_other_videos_and_more_videos_keep_the_first():
    plan = plan_video(SINGLE, "train", 5)
    assert plan_video(replace(SINGLE, seed=4), "train", 5) != plan
    assert plan_video(SINGLE, "val", 5).video_id != plan.video_id
    assert plan_video(replace(SINGLE, videos_per_class_train=9), "train", 5) == plan
    assert not np.array_equal(render_video(plan, SINGLE), render_video(plan, replace(SINGLE, seed=4)))


def test_single_label_set_is_read_as_kinetics(records):
    val = read_records(load_description("toy"), "val", records.root)
    for split, count in ((records, 2), (val, 1)):
        assert split.classes.names == MOTIONS
        assert missing(split) == []
        assert sorted(names(split)) == sorted(MOTIONS * count)


def test_multi_label_set_is_read_as_charades(multi_records):
    assert multi_records.classes.names == MOTIONS
    assert multi_records.multi_label
    assert missing(multi_records) == []
    for index in range(len(multi_records)):
        video = plan_video(MULTI, "train", index)
        assert sorted(each.motion for each in video.segments) == multi_records.labels(index).tolist()
        for segment in video.segments:
            middle = (segment.first + segment.last) / 2 / video.fps
            assert multi_records.labels(index, middle, middle).tolist() == [segment.motion]
        assert multi_records.labels(index, video.num_frames / video.fps + 0.01, 99).tolist() == []


def test_files_hold_the_rendered_frames(records):
    sizes, rates = set(), set()
    for index in range(16):
        video = plan_video(SINGLE, "train", index)
        with av.open(records.root / video.path) as container:
            stream = container.streams.video[0]
            frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
            assert stream.average_rate == video.fps
        assert frames.shape == (24, video.height, video.width, 3)
        sizes.add(frames.shape[1:3])
        rates.add(video.fps)
        assert np.abs(frames.astype(int) - render_video(video, SINGLE)).mean() < 6  # of 255: mild compression
    assert len(sizes) > 1
    assert len(rates) == 2


def test_multi_label_videos_have_one_to_three_motions_with_pauses():
    videos = [plan_video(MULTI, "train", index) for index in range(60)]
    assert {len(video.segments) for video in videos} == {1, 2, 3}
    for video in videos:
        limits = [0, *(limit for each in video.segments for limit in (each.first, each.last)), video.num_frames]
        assert limits == sorted(limits)
        assert 48 <= video.num_frames <= 60
        assert len({each.motion for each in video.segments}) == len(video.segments)
    for video in videos[:6]:
        changes = np.abs(np.diff(render_video(video, MULTI).astype(int), axis=0)).max(axis=(1, 2, 3))
        moving = [frame for segment in video.segments for frame in range(segment.first, segment.last)]
        assert np.flatnonzero(changes).tolist() == moving


@pytest.mark.parametrize("motion", range(len(MOTIONS)), ids=MOTIONS)
def test_place_angle_and_size_are_uniform_in_every_frame(motion):
    """A frame has the same distribution for all classes, and the first frame does not depend on the motion."""
    first, other = (render_clip(generator(0, 1), 48, 64, 12, 2, [Segment(each, 0, 2)]) for each in (motion, 0))
    assert np.array_equal(first[0], other[0])
    assert np.array_equal(first[1], other[1]) == (motion == 0)
    segments = [Segment(motion, 0, 24)]
    states = np.stack([_states(generator(0, motion, i), 72, 96, 12, 24, segments) for i in range(400)])
    states /= [PERIOD * 72, PERIOD * 72, 1, 1]
    for frame in (0, 7, 16, 23):
        for column in range(4):
            assert kstest(states[:, frame, column], "uniform").pvalue > 1e-3 / 128  # 128 tests in all, fixed seeds


def test_a_complete_set_is_kept_and_a_damaged_one_made_again(copied):
    root, before = copied.root, contents(copied.root)
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*.mp4")}
    assert not make(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.mp4")} == times
    older = {key: value for key, value in json.loads(before["toy.json"]).items() if key != "task"}
    (root / "toy.json").write_text(json.dumps(older))
    assert not make(root)
    marker = json.dumps({**json.loads(before["toy.json"]), "complete": False})
    for file, content in ((copied.paths[0], None), (copied.paths[1], ""), ("train.csv", None), ("toy.json", marker)):
        (root / file).unlink() if content is None else (root / file).write_text(content)
        assert make(root)
        assert contents(root) == before


def test_other_content_and_impossible_settings_are_refused(records, tmp_path):
    before = contents(records.root)
    with refused("seed 1", "not 4"):
        make(records.root, replace(SINGLE, seed=4))
    with refused("multi_label False", "not True"):
        make(records.root, MULTI)
    assert contents(records.root) == before
    text = tmp_path / "thesis.tex"
    text.touch()
    for place, message in ((tmp_path, "not a toy set"), (text, "not a toy set"), (text / "toy", "Not a directory")):
        with refused(place, message):
            make(place)
    (tmp_path / "toy.json").write_text("[]")
    with refused(tmp_path, "not a toy set"):
        make(tmp_path)
    for setting, value in (("videos_per_class_val", 0), ("seed", -1)):
        with refused(f"{setting} is {value}"):
            ToySettings(**{setting: value})


def test_the_tool(tmp_path, run_main):
    options = [tmp_path / "new", "--videos_per_class_train", 1, "--videos_per_class_val", 1, "--num_processes", 1]
    for part in ("made in", "already there"):
        out, _ = run_main(main, *options)
        assert "8 train and 8 val videos" in out
        assert part in out
    for more, message in (["--seed", 1], "seed 0, not 1"), (["--sed", 1], "--sed"):
        assert_refusal(run_main(main, *options, *more, code=2)[1], message)


LEADER = ToySettings(task="leader", seed=2, videos_per_class_train=1, videos_per_class_val=1)
HUES = {"white": (1, 1, 1), "red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0)}
HUES["magenta"] = (1, 0, 1)
SHIFTS = {"left": (0, -4), "right": (0, 4), "up": (-4, 0), "down": (4, 0)}


def color_and_drift(window_TyxC):
    """Measure the nearest hue, and the shift that best maps each frame of a window to the next."""
    hues = np.array([*HUES.values()])
    alike = hues @ window_TyxC.mean(axis=(0, 1, 2)) / np.linalg.norm(hues, axis=1)
    gray = window_TyxC.mean(axis=-1)
    errors = [np.abs(np.roll(gray[:-1], shift, axis=(1, 2)) - gray[1:]).mean() for shift in SHIFTS.values()]
    return [*HUES][alike.argmax()], [*SHIFTS][np.argmin(errors)]


def test_the_class_of_a_leader_video_is_the_window_that_drifts_as_the_white_one(tmp_path):
    """Colors and motions are measured in the encoded files."""
    make(tmp_path, LEADER)
    records = read_records(load_description("toy_leader"), "train", tmp_path)
    assert missing(records) == []
    numbers = set()
    for index, name in enumerate(names(records)):
        with av.open(records.path(index)) as container:
            frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        cells = frames.reshape(24, 3, 16, 3, 16, 3).transpose(1, 3, 0, 2, 4, 5).reshape(9, 24, 16, 16, 3).astype(float)
        windows = [color_and_drift(cell) for cell in cells if cell.max() > 128]
        assert len({color for color, _ in windows}) == len(windows)
        leader = dict(windows).pop("white")
        assert [" ".join(each) for each in windows if each[1] == leader and each[0] != "white"] == [name]
        numbers.add(len(windows))
    assert sorted(names(records)) == sorted(records.classes.names)
    assert len(numbers) > 3


def test_a_frame_of_a_leader_video_does_not_tell_the_direction():
    first, other = (render_leader(generator(0, 1), 2, label) for label in (0, 1))
    assert np.array_equal(first[0], other[0])
    assert not np.array_equal(first[1], other[1])


@pytest.mark.parametrize(("settings", "message"), [({"task": "lead"}, "leader"), ({"multi_label": True}, "leader")])
def test_settings_of_another_task_are_refused(settings, message):
    with refused(message):
        replace(LEADER, **settings)
