"""Generate a data set of encoded video files, for runs without a download.

Task `motions`, single-label: Kinetics-style CSV files, one motion per video. Multi-label: Charades-style CSV files, one
to three consecutive motions with their times. Files differ in size, shape and frame rate, as in real sets.
Task `leader`: Kinetics-style, files of one size, whose class is a relation between moving objects.
"""

import csv
import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from toy_clip import MOTIONS, Segment, render_clip
from toy_leader import FOLLOWERS, SIDE, render_leader

from vidtl.config.checks import require, require_choice
from vidtl.errors import UserError
from vidtl.runtime.files import user_error_if_not_written, whole_file
from vidtl.runtime.progress import Progress
from vidtl.runtime.seeding import generator
from vidtl.video.encoder import encode_video

VERSION = 1  # incremented when the same settings give other files
MARKER = "toy.json"
FRAME_SIZES = ((72, 96), (80, 96), (72, 84), (96, 80))  # height and width
FRAME_RATES = (12, 15)
NUM_FRAMES = 24
SPLITS = ("train", "val")
TASKS = ("motions", "leader")

_KINETICS_HEADER = "label youtube_id time_start time_end split"
_CHARADES_HEADER = "id subject scene quality relevance verified script objects descriptions actions length"
_ID_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_PLAN, _PIXELS = 0, 1


@dataclass(frozen=True, kw_only=True)
class ToySettings:
    """The settings that determine all files."""

    task: str = "motions"
    seed: int = 0
    videos_per_class_train: int = 100
    videos_per_class_val: int = 25
    multi_label: bool = False

    def __post_init__(self) -> None:
        require_choice("task", self.task, TASKS)
        require(self.task == "motions" or not self.multi_label, "multi_label", True, f"False with task {self.task}")
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        for name in ("videos_per_class_train", "videos_per_class_val"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their numbers."""
        return MOTIONS if self.task == "motions" else FOLLOWERS


class ToyVideo(NamedTuple):
    """The plan of one file; `start_s` is the start of the clip in its fictitious source video."""

    split: str
    number: int
    video_id: str
    path: str
    height: int
    width: int
    fps: int
    num_frames: int
    start_s: int
    segments: tuple[Segment, ...]


def make_toy(directory: Path, settings: ToySettings, progress: Progress, num_processes: int = 2) -> bool:
    """Write the set, or keep a complete one of the same settings and return False.

    Pixels do not depend on the number of processes. UserError for a directory that holds anything else, or cannot be
    written.
    """
    counts = zip(SPLITS, (settings.videos_per_class_train, settings.videos_per_class_val), strict=True)
    places = [(split, index) for split, count in counts for index in range(count * len(settings.classes))]
    videos = [plan_video(settings, *place) for place in places]
    with user_error_if_not_written(directory):
        if _is_complete(directory, settings, videos):
            return False
        _write_set(directory, settings, videos, progress, num_processes)
    return True


def _write_set(
    directory: Path, settings: ToySettings, videos: list[ToyVideo], progress: Progress, num_processes: int
) -> None:
    for split in SPLITS:
        (directory / "videos" / split).mkdir(parents=True, exist_ok=True)
    _write_marker(directory, settings, complete=False)
    with progress.task("toy videos", "videos", len(videos)) as task:
        for done, _ in enumerate(_write_videos(directory, settings, videos, num_processes), start=1):
            task.update(done)
    for split in SPLITS:
        header = (_CHARADES_HEADER if settings.multi_label else _KINETICS_HEADER).split()
        row_of = _charades_row if settings.multi_label else partial(_kinetics_row, settings.classes)
        with (directory / f"{split}.csv").open("w", newline="") as stream:
            rows = [row_of(video) for video in videos if video.split == split]
            csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    if settings.multi_label:
        lines = [f"c{number:03d} {name}\n" for number, name in enumerate(MOTIONS)]
        (directory / "classes.txt").write_text("".join(lines))
    _write_marker(directory, settings, complete=True)


def plan_video(settings: ToySettings, split: str, index: int) -> ToyVideo:
    """Draw everything about a file except its pixels. More videos per class keep the earlier ones."""
    rng = generator(settings.seed, SPLITS.index(split), index, _PLAN)
    video_id = "".join(_ID_CHARACTERS[number] for number in rng.integers(len(_ID_CHARACTERS), size=11))
    height, width = FRAME_SIZES[rng.integers(len(FRAME_SIZES))]
    fps, start_s = FRAME_RATES[rng.integers(len(FRAME_RATES))], int(rng.integers(300))
    if settings.task == "leader":
        height = width = SIDE
    if settings.multi_label:
        # One to three different motions of 10 to 16 frames, in random order, with random pauses.
        num_frames, count, name = int(rng.integers(48, 61)), int(rng.integers(1, 4)), f"{video_id}.mp4"
        motions, lengths = rng.permutation(len(MOTIONS))[:count], rng.integers(10, 17, size=count)
        pauses = rng.multinomial(num_frames - int(lengths.sum()), np.full(count + 1, 1 / (count + 1)))
        firsts = np.cumsum(pauses[:-1]) + np.cumsum(lengths) - lengths
        limits = np.stack([motions, firsts, firsts + lengths], axis=1)
        segments = tuple(Segment(*segment) for segment in limits.tolist())
    else:
        num_frames, segments = NUM_FRAMES, (Segment(index % len(settings.classes), 0, NUM_FRAMES),)
        name = f"{video_id}_{start_s:06d}_{start_s + -(-num_frames // fps):06d}.mp4"
    path = f"videos/{split}/{name}"
    return ToyVideo(split, index, video_id, path, height, width, fps, num_frames, start_s, segments)


def render_video(video: ToyVideo, settings: ToySettings) -> NDArray[np.uint8]:
    """Render the frames before encoding: RGB uint8 [T, H, W, 3]."""
    rng = generator(settings.seed, SPLITS.index(video.split), video.number, _PIXELS)
    if settings.task == "leader":
        return render_leader(rng, video.num_frames, video.segments[0].motion)
    return render_clip(rng, video.height, video.width, video.fps, video.num_frames, video.segments)


def _write_videos(directory: Path, settings: ToySettings, videos: list[ToyVideo], num_processes: int) -> Iterator[None]:
    write = partial(_write_video, directory, settings)
    if num_processes == 1:
        yield from map(write, videos)
        return
    # not fork: the caller may have threads, such as that of a progress bar
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    context.set_forkserver_preload([__name__])  # the heavy imports once, not in every process
    with ProcessPoolExecutor(num_processes, context, cv2.setNumThreads, (1,)) as pool:
        yield from pool.map(write, videos, chunksize=8)


def _write_video(directory: Path, settings: ToySettings, video: ToyVideo) -> None:
    encode_video(directory / video.path, render_video(video, settings), video.fps)


def _kinetics_row(classes: Sequence[str], video: ToyVideo) -> list[str]:
    end_s = video.start_s + -(-video.num_frames // video.fps)  # Kinetics' times are whole seconds
    return [classes[video.segments[0].motion], video.video_id, str(video.start_s), str(end_s), video.split]


def _charades_row(video: ToyVideo) -> list[str]:
    actions = ";".join(
        f"c{each.motion:03d} {each.first / video.fps:.2f} {each.last / video.fps:.2f}" for each in video.segments
    )
    script = "A patch, " + ", then ".join(MOTIONS[each.motion] for each in video.segments) + "."
    length = f"{video.num_frames / video.fps:.2f}"
    return [video.video_id, "T000", "Plane", "7", "7", "Yes", script, "patch", script, actions, length]


def _is_complete(directory: Path, settings: ToySettings, videos: list[ToyVideo]) -> bool:
    """Return True if the directory holds this set, False if it is empty; UserError for anything else."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    try:
        marker = {"task": "motions", **json.loads((directory / MARKER).read_text())}  # sets from before there was one
        wanted = {"version": VERSION, **asdict(settings)}
        found = {name: value for name, value in marker.items() if name != "complete"}
    except (OSError, ValueError, TypeError):
        raise UserError(f"{directory}: not empty and not a toy set; allowed: an empty or a new directory") from None
    if found != wanted:
        differing = sorted(key for key in wanted if found.get(key) != wanted[key])
        detail = ", ".join(f"{key} {found.get(key)!r}, not {wanted[key]!r}" for key in differing)
        raise UserError(f"{directory}: holds a toy set with {detail}; allowed: another directory or the same settings")
    lists = [f"{split}.csv" for split in SPLITS] + ["classes.txt"] * settings.multi_label
    files = [directory / name for name in (*lists, *(video.path for video in videos))]
    return bool(marker["complete"]) and all(file.is_file() and file.stat().st_size for file in files)


def _write_marker(directory: Path, settings: ToySettings, complete: bool) -> None:
    with whole_file(directory / MARKER) as file:
        file.write(json.dumps({"version": VERSION, **asdict(settings), "complete": complete}, indent=2) + "\n")
