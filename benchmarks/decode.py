"""Time reading random clips beside decord, torchcodec and pytorchvideo, in turns in one run.

    python -m benchmarks.decode VIDEO VIDEO --output speed.json

Each clip (32 frames, stride 2, a random box resized to 224 x 224) opens its file, as in training. Printed are clips per
CPU second of one thread as multiples of decoding alone, from the key frame before the clip to its last frame.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from statistics import geometric_mean
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from vidtl.config.checks import require
from vidtl.data.sampling import span_indices
from vidtl.errors import UserError
from vidtl.prepare.scan import ScanJob, scan_file
from vidtl.runtime.files import printable
from vidtl.runtime.seeding import generator
from vidtl.runtime.signals import run_tool
from vidtl.runtime.timing import describe_measurement, measure_seconds
from vidtl.video import Box, View, open_video
from vidtl.video.timeline import ScannedVideo

FRAME_SIZE = (224, 224)
NUM_FRAMES, STRIDE = 32, 2
LIMIT = "decode only"


class Request(NamedTuple):
    """A clip, and the manifest's entry of its file."""

    path: Path
    scanned: ScannedVideo
    view: View


Read = Callable[[Request], object]


def _ours(pixel_format: Any, with_manifest: bool = True) -> Read:
    def read(request: Request) -> np.ndarray:
        with open_video(request.path, scanned=request.scanned if with_manifest else None) as video:
            return video.read([request.view], FRAME_SIZE, pixel_format)

    return read


def _resized(frames: np.ndarray, box: Box) -> np.ndarray:
    """Crop and resize by OpenCV, which users of the other libraries do next: uint8 [T, H, W, 3]."""
    top, left, height, width = box
    out = np.empty((len(frames), *FRAME_SIZE, 3), dtype=np.uint8)
    for target, frame in zip(out, frames[:, top : top + height, left : left + width], strict=True):
        cv2.resize(frame, FRAME_SIZE, dst=target, interpolation=cv2.INTER_LINEAR)
    return out


def _decord(request: Request) -> np.ndarray:
    decord: Any = importlib.import_module("decord")
    reader = decord.VideoReader(str(request.path), num_threads=1)
    return _resized(reader.get_batch(request.view.indices.tolist()).asnumpy(), request.view.box)


def _torchcodec(mode: str) -> Read:
    def read(request: Request) -> np.ndarray:
        decoders: Any = importlib.import_module("torchcodec.decoders")
        decoder = decoders.VideoDecoder(str(request.path), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode=mode)
        return _resized(decoder.get_frames_at(request.view.indices.tolist()).data.numpy(), request.view.box)

    return read


def _pytorchvideo(request: Request) -> np.ndarray:
    """Read all frames of a span of time, in float, as its own decoder does."""
    encoded: Any = importlib.import_module("pytorchvideo.data.encoded_video_pyav")
    first, last = (float(request.scanned.timeline.times_s[i]) for i in request.view.indices[[0, -1]])
    with request.path.open("rb") as stream, closing(encoded.EncodedVideoPyAV(stream, decode_audio=False)) as video:
        clip = video.get_clip(Fraction(first), Fraction(last) + Fraction(1, 1000))
    frames = clip["video"].to(torch.uint8).permute(1, 2, 3, 0).numpy()[::STRIDE]
    return _resized(frames[:NUM_FRAMES], request.view.box)


def _decode_only(request: Request) -> None:
    """Decode without touching a pixel: the least that reading costs, unless unneeded pictures are skipped."""
    assert request.scanned.timeline.pts is not None
    pts = request.scanned.timeline.pts[request.view.indices]
    with av.open(str(request.path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        container.seek(int(pts.min()), stream=stream)
        for frame in container.decode(stream):
            if frame.pts is not None and frame.pts >= pts.max():
                break


CONTENDERS: dict[str, tuple[str, Read]] = {
    "planar": ("av", _ours("planar")),
    "planar, no manifest": ("av", _ours("planar", with_manifest=False)),
    "RGB": ("av", _ours("rgb")),
    "decord": ("decord", _decord),
    "torchcodec exact": ("torchcodec", _torchcodec("exact")),
    "torchcodec approximate": ("torchcodec", _torchcodec("approximate")),
    "pytorchvideo": ("pytorchvideo", _pytorchvideo),
    LIMIT: ("av", _decode_only),
}
"""Package and function of each way to read a clip."""


class FileTimes(NamedTuple):
    """CPU seconds per clip of one file: the mean over the clips of each round."""

    name: str
    seconds: dict[str, list[float]]
    refused: dict[str, str]
    """Errors of contenders that cannot read the file."""

    def speed(self, name: str) -> float | None:
        """Return clips per CPU second as a multiple of decoding alone: the median over rounds of ratios in a round."""
        if name not in self.seconds or LIMIT not in self.seconds:
            return None
        return float(np.median(np.divide(self.seconds[LIMIT], self.seconds[name])))


def time_file(path: Path, contenders: dict[str, Read], num_clips: int, num_rounds: int) -> FileTimes:
    """Read random clips with every contender, in changing order; UserError for a file without times to seek by."""
    entry = scan_file(ScanJob(path.parent, path.name, "packets"))
    scanned = entry.scanned() if entry.status == "ok" else None
    if scanned is None or scanned.timeline.pts is None:
        raise UserError(f"{path} cannot be timed: {entry.reason or 'it has no timestamps'}")
    cv2.setNumThreads(0)
    seconds: dict[str, list[float]] = {}
    refused = {}
    requests = [_random_clip(path, scanned, number) for number in range(num_clips * num_rounds)]
    for name, read in contenders.items():  # which also imports and warms up
        try:
            read(requests[0])
            seconds[name] = [0.0] * num_rounds
        except Exception as error:
            refused[name] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    names = list(seconds)
    for number, request in enumerate(requests):
        for place in generator(1, number).permutation(len(names)):
            elapsed = measure_seconds(lambda n=names[place], r=request: contenders[n](r), torch.device("cpu"))
            seconds[names[place]][number // num_clips] += elapsed / num_clips
    return FileTimes(path.name, seconds, refused)


def _random_clip(path: Path, scanned: ScannedVideo, number: int) -> Request:
    """Draw a random start and a box of 30 to 100 % of the frame, as in training."""
    rng = generator(2, number)
    count = len(scanned.timeline.times_s)
    height, width = scanned.orientation.displayed_size(*scanned.coded_size)
    start = int(rng.integers(max(1, count - (NUM_FRAMES - 1) * STRIDE)))
    indices = span_indices(start, NUM_FRAMES, STRIDE, count, "hold")
    scale = float(np.sqrt(rng.uniform(0.3, 1.0)))
    box_height, box_width = max(2, int(height * scale)), max(2, int(width * scale))
    top, left = int(rng.integers(height - box_height + 1)), int(rng.integers(width - box_width + 1))
    return Request(path, scanned, View(indices, Box(top, left, box_height, box_width)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path, help="files to read")
    parser.add_argument("--clips", type=int, default=4, help="random clips of each file per round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the median is taken")
    parser.add_argument("--output", type=Path, help="JSON file to write, with the seconds of every round")
    options = parser.parse_args()
    for name in ("clips", "rounds"):
        require(getattr(options, name) >= 1, f"--{name}", getattr(options, name), "1 or more")
    require(not options.output or options.output.parent.is_dir(), "--output", str(options.output), "a file in a folder")
    for path in options.videos:
        require(path.is_file(), "VIDEO", str(path), "files")
    torch.set_num_threads(1)
    contenders = {name: read for name, (package, read) in CONTENDERS.items() if importlib.util.find_spec(package)}
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    for name in CONTENDERS.keys() - contenders.keys():
        console.print(f"not installed: {name}")
    files, left_out = list[FileTimes](), list[str]()
    for path in options.videos:
        try:
            files.append(time_file(path, contenders, options.clips, options.rounds))
        except UserError as error:  # which takes no other file's times
            left_out.append(str(error))
            console.print(printable(f"left out: {error}"))
    if not files:
        raise UserError(f"no file could be timed, such as {left_out[0]}")
    print_speeds(console, files, [name for name in contenders if name != LIMIT])
    if options.output:
        report = describe_measurement("-m benchmarks.decode", ("av", "decord", "torchcodec", "pytorchvideo"))
        report |= {"files": [file._asdict() for file in files], "left_out": left_out}
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def print_speeds(console: Console, files: Sequence[FileTimes], names: Sequence[str]) -> None:
    """Print a line per file, and the geometric mean of each contender over the files that it reads."""
    table = Table(title="clips per CPU second, as multiples of decoding alone", title_justify="left")
    table.add_column("file")
    for name in names:
        table.add_column(name, justify="right")
    for file in files:
        speeds = [file.speed(name) for name in names]
        table.add_row(printable(file.name), *("refused" if speed is None else f"{speed:.2f}" for speed in speeds))
    known = [[speed for file in files if (speed := file.speed(name)) is not None] for name in names]
    table.add_section()
    table.add_row("geometric mean", *(f"{geometric_mean(speeds):.2f}" if speeds else "" for speeds in known))
    console.print(table)


if __name__ == "__main__":
    run_tool(main)
