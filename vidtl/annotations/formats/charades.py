"""Published forms of Charades' annotation: CSV files with a row per video, and lists with a row per frame."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from vidtl.annotations.formats.builder import RecordsBuilder
from vidtl.annotations.formats.source import AnnotationSource, Row, seconds
from vidtl.annotations.layout import check_relative
from vidtl.errors import UserError

_ACTION = re.compile(r"c(\d+)\s+(\S+)\s+(\S+)")

_HEADER = ("original_vido_id", "video_id", "frame_id", "path", "labels")
_NUMBER = re.compile(r"(\d{1,9})\.\w+$")


def read_charades_csv(source: AnnotationSource) -> RecordsBuilder:
    """Read one record per row; a video without actions has no label.

    Columns `id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length`, of which three are
    read. `actions` is `c092 11.90 21.20;c147 0.00 12.60` (class, start and end in seconds) or empty.

    Almost a third of Charades' segments end after the video does, and a few start after it or end before they start.
    They are clipped to the video's length: times before it are in the same segments, and such a segment is empty.
    """
    builder = RecordsBuilder(source)
    for row in source.rows():
        video_id = check_relative(row.values["id"], f"{row.where}: {source.columns['id']}")
        builder.add(row, video_id, source.finder.find({"id": video_id}))
        actions = [*filter(None, map(str.strip, row.values["actions"].split(";")))]
        text = row.values.get("length", "")
        length = seconds(text, row, source.columns["length"]) if text or actions else math.nan
        builder.lengths_s.append(length)
        column = source.columns["actions"]
        for action in actions:
            parsed = _ACTION.fullmatch(action)
            if parsed is None:
                raise UserError(f"{row.where}: {column} has {action!r}; 'c<number> <start> <end>' is needed")
            start, end = (min(seconds(parsed[i], row, column), length) for i in (2, 3))
            builder.label(row, source.class_name(parsed[1], row), start, max(math.nextafter(start, -math.inf), end))
    pattern = source.finder.expected_pattern()
    builder.complete(lambda video_id, _: pattern.format(id=video_id))
    return builder


@dataclass
class _FrameFolder:
    """A video of a frame list, while its frames are read."""

    row: Row
    folder: str
    name: str
    """File name of the first frame."""
    first: int
    """Number in that name."""
    count: int = 0
    runs: dict[str, list[list[int]]] = field(default_factory=dict)
    """First and last frame, from 0, of each run of each label."""


def read_frame_list(source: AnnotationSource) -> RecordsBuilder:
    """Read the frame lists of SlowFast and pytorchvideo: a record per video, which is a folder of frames.

        original_vido_id video_id frame_id path labels
        46GP8 0 0 46GP8/46GP8-000001.jpg "33,51"
        46GP8 0 1 46GP8/46GP8-000002.jpg ""

    The first column's name is misspelled in all of them. Labels are class numbers from 0, for that frame. Frames must
    be listed from the first on and without gaps.

    A label of the frames i to j lasts from half a frame before i to half a frame after j, so that a clip has the labels
    of all frames from its first to its last, as in SlowFast.
    """
    rate = source.dataset.frame_rate
    assert rate is not None  # the description requires it for this format
    videos: dict[str, _FrameFolder] = {}
    headers: set[Path] = set()
    for row, text in source.lines():
        if row.file in headers:
            _add_frame(source, videos, row, text)
        elif tuple(text.split()) in (_HEADER, ("original_video_id", *_HEADER[1:])):
            headers.add(row.file)
        else:
            raise UserError(f"{row.where}: the header is {text!r}; {' '.join(_HEADER)!r} is needed")
    builder = RecordsBuilder(source)
    for video_id, video in videos.items():
        path = source.locate(video.folder, video.row)
        _check_first(source.root / path, video)
        builder.add(video.row, video_id, path)
        for label, runs in video.runs.items():
            name = source.class_name(label, video.row)
            for start, end in runs:
                builder.label(video.row, name, (start - 0.5) / rate, (end + 0.5) / rate)
    return builder


def _add_frame(source: AnnotationSource, videos: dict[str, _FrameFolder], row: Row, text: str) -> None:
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
        video = videos[video_id] = _FrameFolder(row, folder, name, number)
    expected = video.first + video.count
    if folder != video.folder or number != expected:
        raise UserError(f"{row.where}: path is {path!r}; frame {expected} of {video.folder!r} is needed next")
    for label in filter(None, labels.strip("\"'").split(",")):
        if label not in video.runs:
            source.class_name(label, row)  # raises with the line of an unknown number
        runs = video.runs.setdefault(label, [])
        if runs and runs[-1][1] == video.count - 1:
            runs[-1][1] = video.count
        else:
            runs.append([video.count, video.count])
    video.count += 1


def _check_first(folder: Path, video: _FrameFolder) -> None:
    """Raise a UserError if the folder has an image before the first listed one, where a reader would start."""
    parsed = _NUMBER.search(video.name)
    assert parsed is not None
    number = str(video.first - 1)
    for digits in (number, number.zfill(len(parsed[1]))) if video.first else ():
        name = f"{video.name[: parsed.start(1)]}{digits}{video.name[parsed.end(1) :]}"
        if (folder / name).exists():
            also = f"but {str(folder)!r} also has {name!r}; a list from the first image on is needed"
            raise UserError(f"{video.row.where}: {video.name!r} is listed first, {also}")
