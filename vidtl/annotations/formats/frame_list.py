"""Frame lists of SlowFast and pytorchvideo for Charades: a row per frame.

    original_vido_id video_id frame_id path labels
    46GP8 0 0 46GP8/46GP8-000001.jpg "33,51"
    46GP8 0 1 46GP8/46GP8-000002.jpg ""

The first column's name is misspelled in all of them. Labels are class numbers from 0, for that frame.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from vidtl.annotations.formats.source import AnnotationSource, Columns, RecordsBuilder, Row
from vidtl.annotations.formats.text_files import text_lines
from vidtl.errors import UserError

COLUMNS: Columns = {}

_HEADER = ("original_vido_id", "video_id", "frame_id", "path", "labels")
_NUMBER = re.compile(r"(\d+)\.\w+$")


@dataclass
class _Video:
    row: Row
    folder: str
    name: str
    """File name of its first frame."""
    first: int
    """Number in that name."""
    count: int = 0
    runs: dict[str, list[list[int]]] = field(default_factory=dict)
    """First and last frame, from 0, of each run of each label."""


def read_frame_list(source: AnnotationSource) -> RecordsBuilder:
    """Read a record per video: a folder of frames, which must be listed from the first on and without gaps.

    A label of the frames i to j lasts from half a frame before i to half a frame after j, so that a clip has the labels
    of all frames from its first to its last, as in SlowFast.
    """
    assert source.frame_rate is not None  # the description requires it for this format
    videos: dict[str, _Video] = {}
    for number, file in enumerate(source.annotations):
        lines = text_lines(file)
        header = next(lines, (1, ""))[1].split()
        if tuple(header) not in (_HEADER, ("original_video_id", *_HEADER[1:])):
            raise UserError(f"{file}:1: the header is {' '.join(header)!r}; {' '.join(_HEADER)!r} is needed")
        for line, text in lines:
            _add_frame(source, videos, Row(file, number, line, {}), text)
    builder = RecordsBuilder(source)
    for video_id, video in videos.items():
        path = source.locate(video.folder, video.row.where)
        _check_first(source.root / path, video)
        builder.add(video.row, video_id, path)
        for label, runs in video.runs.items():
            name = source.class_name(label, video.row.where)
            for start, end in runs:
                builder.label(video.row, name, (start - 0.5) / source.frame_rate, (end + 0.5) / source.frame_rate)
    return builder


def _add_frame(source: AnnotationSource, videos: dict[str, _Video], row: Row, text: str) -> None:
    fields = text.split()
    if len(fields) != len(_HEADER):
        raise UserError(f"{row.where}: {len(fields)} fields; {len(_HEADER)} are needed, {' '.join(_HEADER)}")
    video_id, _, _, path, labels = fields
    folder, _, name = path.rpartition("/")
    parsed = _NUMBER.search(name)
    if not folder or parsed is None:
        raise UserError(f"{row.where}: path is {path!r}; '<folder>/<name><number>.<suffix>' is needed")
    number = int(parsed[1])
    video = videos.get(video_id)
    if video is None:
        video = videos[video_id] = _Video(row, folder, name, number)
    if folder != video.folder or number != video.first + video.count:
        raise UserError(
            f"{row.where}: path is {path!r}; frame {video.first + video.count} of {video.folder!r} comes next here"
        )
    for label in filter(None, labels.strip("\"'").split(",")):
        runs = video.runs.get(label)
        if runs is None:
            source.class_name(label, row.where)  # raises with the line of an unknown number
            runs = video.runs[label] = []
        if runs and runs[-1][1] == video.count - 1:
            runs[-1][1] = video.count
        else:
            runs.append([video.count, video.count])
    video.count += 1


def _check_first(folder: Path, video: _Video) -> None:
    """Raise a UserError if the folder has an image before the first listed one, where a reader would start."""
    parsed = _NUMBER.search(video.name)
    assert parsed is not None
    number = str(video.first - 1)
    for digits in (number, number.zfill(len(parsed[1]))) if video.first else ():
        name = f"{video.name[: parsed.start(1)]}{digits}{video.name[parsed.end(1) :]}"
        if (folder / name).exists():
            raise UserError(
                f"{video.row.where}: {video.name!r} is listed first, but {str(folder)!r} also has {name!r}; "
                "a list from the first image on is needed"
            )
