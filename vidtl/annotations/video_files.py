"""Find videos given by path or folder, without annotation.

Folders are searched for images, files that start like a video container, and files with the name of a video, so that a
broken one is reported rather than ignored.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vidtl.annotations.records import ClassNames, Records, StringColumn
from vidtl.annotations.walk import Kind, VideoWalk
from vidtl.config import DataConfig
from vidtl.errors import UserError, existing
from vidtl.video import UnreadableVideo
from vidtl.video.safety import checked_path, container_of_head
from vidtl.video.suffixes import IMAGE_SUFFIXES

_ANY = ClassNames(("any",))
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class VideoFile(NamedTuple):
    """One video to open."""

    path: Path
    """As given; for videos in a folder, below that folder."""
    kind: Kind


class FoundVideos(NamedTuple):
    """Videos found at the given paths, each once."""

    videos: list[VideoFile]
    """In the order given; below a folder in that of `VideoWalk`."""
    ignored: list[Path]
    """Files and folders that were found and not read, see `VideoWalk`."""


def find_videos(paths: Iterable[Path], image_model: bool = False) -> FoundVideos:
    """Find videos: files, and those in folders, for an `image_model` each image; UserError for missing paths."""
    videos: dict[Path, VideoFile] = {}
    ignored: list[Path] = []
    for path in paths:
        existing(path, "video file or folder")
        if not path.is_dir():
            videos.setdefault(path, VideoFile(path, "image" if path.suffix.lower() in IMAGE_SUFFIXES else "video"))
            continue
        walk = VideoWalk(path, path, lambda _: image_model, _has_container)
        for name, kind in walk:
            videos.setdefault(path / name, VideoFile(path / name, kind))
        ignored += [path / name for name in walk.ignored]
    return FoundVideos(list(videos.values()), ignored)


def split_refused(
    videos: Iterable[VideoFile], frame_rate: float | None
) -> tuple[list[VideoFile], list[tuple[VideoFile, str]]]:
    """Separate the videos that can be opened from those that cannot, each with the reason."""
    accepted: list[VideoFile] = []
    refused: list[tuple[VideoFile, str]] = []
    for video in videos:
        if video.kind == "frames" and frame_rate is None:
            refused.append((video, "a folder of images; --frame_rate, in frames per second, is needed"))
        elif _SURROGATE.search(str(video.path)):
            refused.append((video, "its name is not valid UTF-8"))
        else:
            accepted.append(video)
    return accepted, refused


def records_by_kind(
    videos: Sequence[VideoFile],
    data: DataConfig,
    frame_rate: float | None,
    classes: ClassNames = _ANY,
    multi_label: bool = False,
) -> Iterator[tuple[list[VideoFile], Records, DataConfig]]:
    """Yield video files, then images, which are read as RGB, if any: with records, and settings without a manifest."""
    for is_video, pixel_format in ((True, data.pixel_format), (False, "rgb")):
        of_kind = [video for video in videos if (video.kind == "video") == is_video]
        if of_kind:
            records = records_of_files(of_kind, classes, multi_label, frame_rate)
            workers = min(data.num_workers, len(of_kind))
            yield of_kind, records, replace(data, pixel_format=pixel_format, num_workers=workers, manifest="none")


def records_of_files(
    videos: Sequence[VideoFile], classes: ClassNames, multi_label: bool, frame_rate: float | None
) -> Records:
    """Make records without labels, one per video."""
    n = len(videos)
    paths = StringColumn.from_strings(str(video.path.absolute()) for video in videos)
    return Records(
        root=Path("/"),
        classes=classes,
        multi_label=multi_label,
        annotation=Path("the model"),
        ids=paths,
        paths=paths,
        lines=np.zeros(n, np.int32),
        label_offsets=np.zeros(n + 1, np.int64),
        label_classes=np.zeros(0, np.int32),
        label_starts_s=np.zeros(0),
        label_ends_s=np.zeros(0),
        segment_starts_s=np.zeros(n),
        segment_ends_s=np.full(n, np.inf),
        frame_rate=frame_rate,
    )


def records_of_paths(
    paths: Sequence[Path], data: DataConfig, image_model: bool, frame_rate: float | None
) -> tuple[Records, DataConfig]:
    """Make records of videos, or else of images, with their settings; UserError for none, both, or one refused."""
    videos = find_videos(paths, image_model).videos
    for video, reason in split_refused(videos, frame_rate)[1]:
        raise UserError(f"{video.path}: {reason}")
    kinds = list(records_by_kind(videos, data, frame_rate))
    if len(kinds) != 1:
        found = " and ".join(str(of_kind[0].path) for of_kind, *_ in kinds) or "no videos"
        raise UserError(f"{found} found in {', '.join(map(repr, map(str, paths)))}; allowed: videos, or else images")
    return kinds[0][1:]


def _has_container(path: str) -> bool:
    try:
        return container_of_head(checked_path(Path(path), None)) is not None
    except (UnreadableVideo, OSError):
        return False
