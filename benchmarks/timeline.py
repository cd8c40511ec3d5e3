"""Score the segments of toy videos that are joined end to end, where every change of motion is known.

    make demo
    python -m benchmarks.timeline --checkpoint runs/demo --root data/toy --output docs/results/timeline.json

The clips of validation with one size and frame rate make one file each. A segment is found if one of its class overlaps
it by half of their union; F1 is the harmonic mean of the shares of true segments found and of found segments true.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np

from vidtl.annotations.description import load_description, read_records
from vidtl.annotations.video_files import find_videos
from vidtl.evaluation.timeline import Segment, predict_timelines
from vidtl.models import load_model_directory
from vidtl.runtime.files import say, whole_file
from vidtl.runtime.progress import Progress
from vidtl.runtime.seeding import generator
from vidtl.runtime.signals import run_tool
from vidtl.runtime.timing import describe_measurement
from vidtl.training.checkpoint import find_checkpoint
from vidtl.video.encoder import encode_video
from vidtl.visualize.timeline import draw_timeline


def segment_f1(found: Sequence[Segment], true: Sequence[Segment], least_iou: float = 0.5) -> float:
    """Return F1 of segments matched by class and intersection over union, each at most once, the best first."""
    ious = np.array([[_iou(a, b) if a.name == b.name else 0.0 for b in true] for a in found])
    ious = ious.reshape(len(found), len(true))
    matches = 0
    while ious.size and ious.max() >= least_iou:
        row, column = np.unravel_index(ious.argmax(), ious.shape)
        ious[row], ious[:, column] = 0, 0
        matches += 1
    return 2 * matches / max(len(found) + len(true), 1)


def _iou(a: Segment, b: Segment) -> float:
    both_s = min(a.end_s, b.end_s) - max(a.start_s, b.start_s)
    return max(both_s, 0) / (a.end_s - a.start_s + b.end_s - b.start_s - both_s)


def join_clips(root: Path, folder: Path) -> Iterator[tuple[Path, list[Segment]]]:
    """Write the clips of each size and frame rate as one file, and yield it with its segments."""
    records = read_records(load_description("toy"), "val", root)
    clips = []
    for index in generator(0, len(records)).permutation(len(records)).tolist():
        with av.open(str(records.path(index))) as container:
            fps = container.streams.video[0].average_rate
            frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        clips.append(((*frames.shape[1:3], fps), frames, records.classes.names[records.labels(index)[0]]))
    size = itemgetter(0)
    for (height, width, fps), of_size in groupby(sorted(clips, key=size), key=size):
        joined: list[np.ndarray] = []
        segments: list[Segment] = []
        for _, frames, name in of_size:
            start_s = float(len(joined) / fps)
            joined += list(frames)
            if segments and segments[-1].name == name:
                start_s = segments.pop().start_s
            segments.append(Segment(name, start_s, float(len(joined) / fps), 1.0))
        path = folder / f"{width}x{height} at {fps}.mp4"
        encode_video(path, joined, fps)
        yield path, segments


def main() -> None:
    parser = argparse.ArgumentParser(description="Score segments of joined toy videos.")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True, help="the toy set, with default settings")
    parser.add_argument("--output", type=Path, required=True, help="JSON file; a picture of one file lies beside it")
    options = parser.parse_args()
    model = load_model_directory(find_checkpoint(options.checkpoint).model_directory)
    with TemporaryDirectory() as folder:
        true = dict(join_clips(options.root, Path(folder)))
        videos = find_videos(true).videos
        timelines = list(predict_timelines(model, videos, progress=Progress()))
        found = {timeline.path: timeline.segments() for timeline in timelines}
        first, picture = timelines[0], options.output.with_suffix(".png")
        figures = first.duration_s, *first.cells(), found[first.path]
        draw_timeline(first.path, picture, first.class_names, *figures)
    rows = [
        {"file": path.name, "true": len(known), "found": len(found[path]), "f1": segment_f1(found[path], known)}
        for path, known in true.items()
    ]
    mean = float(np.average([row["f1"] for row in rows], weights=[row["true"] + row["found"] for row in rows]))
    report = describe_measurement("-m benchmarks.timeline") | {"segment_f1_at_iou_0.5": mean, "files": rows}
    with whole_file(options.output) as file:
        json.dump(report, file, indent=1)
    say(f"segment F1 at IoU 0.5: {mean:.3f}, {sum(map(len, true.values()))} segments in {len(true)} files")


if __name__ == "__main__":
    run_tool(main)
