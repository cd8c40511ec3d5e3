"""`predict.py --timeline`: classes of videos over time, on stdout and as files."""

import csv
import json
import logging
import math
import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from vidtl.annotations.video_files import VideoFile
from vidtl.config.checks import require
from vidtl.data.windows import Hop
from vidtl.errors import UserError
from vidtl.evaluation.predict import Prediction, PredictionSettings
from vidtl.evaluation.timeline import Segment, Timeline, predict_timelines
from vidtl.models import VideoModel
from vidtl.runtime.files import say, spreadsheet_cell, user_error_if_not_written, whole_file
from vidtl.runtime.progress import Progress
from vidtl.video import UnreadableVideo
from vidtl.visualize.overlay import write_overlay
from vidtl.visualize.timeline import draw_timeline

WINDOWS = "windows.jsonl"
HEADER = "path", "start_s", "end_s", "class", "probability", "reason"
log = logging.getLogger("vidtl.predict")
OVERLAY_CLASSES = 3  # default of --top_k


def check_timeline(options: Namespace) -> None:
    """Check the options of timelines; UserError for one that is wrong or does not fit the others."""
    given = [name for name in ("hop", "gap", "output", "overlay") if getattr(options, name) is not None]
    if given and not options.timeline:
        raise UserError(f"--{given[0]} is given without --timeline; allowed: both")
    if options.timeline and "evaluation.protocol" in options.settings:
        raise UserError("--timeline and --evaluation.protocol are given; allowed: one of them, as a window is one clip")
    if options.timeline and options.top_k is not None and not options.overlay:
        raise UserError(f"--top_k is {options.top_k} with --timeline; allowed: for --overlay, which is not given")
    options.hop = None if options.hop is None else Hop.parse(options.hop, "--hop")
    require(0 <= (options.gap or 0) < math.inf, "--gap", options.gap, "seconds, 0 or more")
    if options.overlay and (options.overlay.suffix.lower() != ".mp4" or not options.overlay.parent.is_dir()):
        raise UserError(f"--overlay is {str(options.overlay)!r}; allowed: a name.mp4 in a folder that exists")


def print_timelines(
    options: Namespace,
    model: VideoModel,
    videos: Sequence[VideoFile],
    settings: PredictionSettings,
    accelerator: Accelerator,
    threshold: float | NDArray[np.float64] | None,
) -> int:
    """Print the segments of each file once it is scored, and write files; return the number of unreadable files."""
    if options.overlay:
        check_overlay(options.overlay, videos)
    folder, unreadable, rows, pictures = options.output, 0, [list(HEADER)], set[str]()
    if folder:
        with user_error_if_not_written(folder / WINDOWS):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / WINDOWS).write_bytes(b"")
    write = partial(write_window, folder and folder / WINDOWS)
    for timeline in predict_timelines(model, videos, options.hop, settings, accelerator, Progress(), write):
        segments = timeline.segments(threshold, options.gap or 0.0)
        rows += csv_rows(timeline, segments)
        unreadable += bool(timeline.failures)
        if options.json:
            print(json_line(timeline, segments), flush=True)
        elif not options.csv:
            say(*table_lines(timeline, segments))
        if folder and len(timeline.spans_s):
            shown = timeline.class_names, timeline.duration_s, *timeline.cells(), segments
            draw_timeline(timeline.path, folder / picture_name(timeline.path, pictures), *shown)
    if options.csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
    if folder:
        with whole_file(folder / "segments.csv") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        log.info("files  %s: %s, segments.csv, %d pictures", folder, WINDOWS, len(pictures))
    if options.overlay and len(timeline.spans_s):
        top_k = OVERLAY_CLASSES if options.top_k is None else options.top_k or len(timeline.class_names)
        given = timeline.path, options.overlay, timeline.class_names, *timeline.cells(), top_k
        with Progress().task("writing", "seconds", math.ceil(timeline.duration_s)) as task:
            try:
                write_overlay(*given, lambda time_s: task.update(int(time_s)))
            except UnreadableVideo as error:  # changed since it was scored
                raise UserError(f"no overlay: {error}") from None
        log.info("video  %s", options.overlay)
    return unreadable


def check_overlay(path: Path, videos: Sequence[VideoFile]) -> None:
    """Raise a UserError unless there is one video, of which `path` is another file."""
    if len(videos) > 1 or videos[0].kind != "video":
        raise UserError(f"--overlay is given for {len(videos)} videos or images; allowed: one video")
    if path.exists() and path.samefile(videos[0].path):
        raise UserError(f"--overlay is {str(path)!r}, the video itself; allowed: another file")


def write_window(file: Path | None, start_s: float, end_s: float, prediction: Prediction) -> None:
    """Append a line, which stays if the tool ends before all windows are scored."""
    chances = None if prediction.probabilities is None else prediction.probabilities.round(6).tolist()
    line = {
        "path": str(prediction.path),
        "start_s": round(start_s, 6),
        "end_s": round(end_s, 6),
        "probabilities": chances and dict(zip(prediction.class_names, chances, strict=True)),
        "reason": prediction.reason or None,
    }
    if file:
        with user_error_if_not_written(file), file.open("a", encoding="ascii") as stream:
            stream.write(json.dumps(line) + "\n")


def failure(timeline: Timeline) -> str:
    """Say what could not be read and why; empty if all was read."""
    for start_s, reason in timeline.failures.items():
        counts = f"{len(timeline.failures)} of {len(timeline.failures) + len(timeline.spans_s)} windows"
        return f"{counts}, the first at {start_s:.2f} s: {reason}" if timeline.duration_s else reason
    return ""


def table_lines(timeline: Timeline, segments: Sequence[Segment]) -> list[str]:
    """Format a heading, and a line for each segment."""
    reason = failure(timeline)
    heading = f"{timeline.path}  {timeline.duration_s:.1f} s" + (f"  unreadable: {reason}" if reason else "")
    shown = [f"{each.start_s:10.2f} s {each.end_s:9.2f} s  {each.probability:6.1%}  {each.name}" for each in segments]
    return [heading, *shown]


def json_line(timeline: Timeline, segments: Sequence[Segment]) -> str:
    """Format a line of JSON."""
    keys = "class", "start_s", "end_s", "probability"
    found = [dict(zip(keys, (each.name, *(round(value, 4) for value in each[1:])), strict=True)) for each in segments]
    line = {"path": str(timeline.path), "duration_s": round(timeline.duration_s, 3), "segments": found}
    return json.dumps(line | {"reason": failure(timeline) or None})


def csv_rows(timeline: Timeline, segments: Sequence[Segment]) -> list[list[str]]:
    """Make a row for each segment, and one with the reason if not all could be read; none has formulas."""
    rows = [[f"{start_s:.3f}", f"{end_s:.3f}", name, f"{chance:.4f}", ""] for name, start_s, end_s, chance in segments]
    rows += [["", "", "", "", reason] for reason in filter(None, [failure(timeline)])]
    return [list(map(spreadsheet_cell, [str(timeline.path), *row])) for row in rows]


def picture_name(path: Path, used: set[str]) -> str:
    """Return the name of the picture of a file, with a number if another file has the name."""
    names = (f"{path.stem[:50]}{f' {number}' * (number > 1)}.timeline.png" for number in count(1))
    used.add(name := next(name for name in names if name not in used))
    return name
