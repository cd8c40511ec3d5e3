"""One random clip of a file, cropped and resized, by every library in turn.

Axes: T frames, H W pixels.
"""

import importlib.util
from collections.abc import Callable, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
import torch

from vidtl.benchmark.rounds import seconds_of
from vidtl.data.sampling import span_indices
from vidtl.errors import UserError
from vidtl.prepare.scan import ScanJob, scan_file
from vidtl.runtime.seeding import generator
from vidtl.video import Box, ScannedVideo, View, open_video

FRAME_SIZE = (224, 224)
NUM_FRAMES, STRIDE = 32, 2


class Request(NamedTuple):
    """A clip, and what its file is known to hold."""

    path: Path
    scanned: ScannedVideo
    view: View


Read = Callable[[Request], object]


class Contender(NamedTuple):
    """A way to read a clip."""

    name: str
    package: str
    """What must be installed."""
    read: Read


def _ours(request: Request, scanned: ScannedVideo | None, pixel_format: Any) -> np.ndarray:
    with open_video(request.path, scanned=scanned) as video:
        return video.read([request.view], FRAME_SIZE, pixel_format)


def _resized(frames: np.ndarray, box: Box) -> np.ndarray:
    """What users of the other libraries do next: crop, and a bilinear resize by OpenCV."""
    top, left, height, width = box
    out = np.empty((len(frames), *FRAME_SIZE, 3), dtype=np.uint8)
    for target, frame in zip(out, frames, strict=True):
        cv2.resize(
            frame[top : top + height, left : left + width], FRAME_SIZE, dst=target, interpolation=cv2.INTER_LINEAR
        )
    return out


def _decord(request: Request) -> np.ndarray:
    decord: Any = importlib.import_module("decord")
    reader = decord.VideoReader(str(request.path), num_threads=1)
    return _resized(reader.get_batch(request.view.indices.tolist()).asnumpy(), request.view.box)


def _torchcodec(mode: str) -> Read:
    def read(request: Request) -> np.ndarray:
        decoders: Any = importlib.import_module("torchcodec.decoders")
        decoder = decoders.VideoDecoder(str(request.path), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode=mode)
        frames = decoder.get_frames_at(request.view.indices.tolist()).data
        return _resized(frames.numpy(), request.view.box)

    return read


def _pytorchvideo(request: Request) -> np.ndarray:
    """Its own decoder gives all frames of a span of time, in float."""
    encoded: Any = importlib.import_module("pytorchvideo.data.encoded_video_pyav")
    times_s = request.scanned.timeline.times_s
    first, last = request.view.indices[0], request.view.indices[-1]
    with request.path.open("rb") as stream, closing(encoded.EncodedVideoPyAV(stream, decode_audio=False)) as video:
        clip = video.get_clip(Fraction(float(times_s[first])), Fraction(float(times_s[last])) + Fraction(1, 1000))
    frames = clip["video"].to(torch.uint8).permute(1, 2, 3, 0).numpy()[::STRIDE]
    return _resized(frames[:NUM_FRAMES], request.view.box)


def _decode_only(request: Request) -> int:
    """From the key frame before the clip to its last frame with no pixel touched: what reading costs at the least,
    unless pictures that nobody needs are left out."""
    timeline = request.scanned.timeline
    assert timeline.pts is not None
    pts = timeline.pts[request.view.indices]
    with av.open(str(request.path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        container.seek(int(pts.min()), stream=stream)
        count = 0
        for frame in container.decode(stream):
            count += 1
            if frame.pts is not None and frame.pts >= pts.max():
                break
    return count


LIMIT = "decode only"
# Ours, both with the manifest that tools/prepare.py makes; the others resize by OpenCV.
PLANAR, RGB = "planar", "RGB"
DECORD, TORCHCODEC = "decord", ("torchcodec exact", "torchcodec approximate")

CONTENDERS = (
    Contender(PLANAR, "av", lambda request: _ours(request, request.scanned, "planar")),
    Contender("planar, no manifest", "av", lambda request: _ours(request, None, "planar")),
    Contender(RGB, "av", lambda request: _ours(request, request.scanned, "rgb")),
    Contender(DECORD, "decord", _decord),
    Contender(TORCHCODEC[0], "torchcodec", _torchcodec("exact")),
    Contender(TORCHCODEC[1], "torchcodec", _torchcodec("approximate")),
    Contender("pytorchvideo", "pytorchvideo", _pytorchvideo),
    Contender(LIMIT, "av", _decode_only),
)


def installed(contenders: Sequence[Contender] = CONTENDERS) -> list[Contender]:
    """Those whose library is there."""
    return [contender for contender in contenders if importlib.util.find_spec(contender.package)]


class FileTimes(NamedTuple):
    """CPU seconds per clip of one file: a value per round, its mean over the clips of the round."""

    name: str
    seconds: dict[str, list[float]]
    refused: dict[str, str]
    """Contenders that cannot read this file, with their error."""

    def median(self, name: str) -> float | None:
        """Of the rounds; None for one that cannot read the file."""
        return float(np.median(self.seconds[name])) if name in self.seconds else None

    def ratio(self, ours: str, other: str) -> float | None:
        """How many times more clips per CPU second: the median over rounds of ratios within a round."""
        if ours not in self.seconds or other not in self.seconds:
            return None
        return float(np.median(np.divide(self.seconds[other], self.seconds[ours])))


def time_file(path: Path, contenders: Sequence[Contender], num_clips: int, num_rounds: int) -> FileTimes:
    """Read the same random clips by every contender, in an order that changes from clip to clip.

    Raises:
        UserError: the file cannot be read, or has no time stamps to seek by.
    """
    entry = scan_file(ScanJob(path.parent, path.name, "packets"))
    scanned = entry.scanned() if entry.status == "ok" else None
    if scanned is None or scanned.timeline.pts is None:
        raise UserError(f"{path} cannot be timed: {entry.reason or 'it has no time stamps'}")
    cv2.setNumThreads(0)
    able, refused = [], {}
    requests = [_random_clip(path, scanned, number) for number in range(num_clips * num_rounds)]
    for contender in contenders:  # which also imports and warms up
        try:
            contender.read(requests[0])
            able.append(contender)
        except Exception as error:
            refused[contender.name] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    seconds: dict[str, list[float]] = {contender.name: [] for contender in able}
    for turn in range(num_rounds):
        sums = dict.fromkeys(seconds, 0.0)
        for number in range(num_clips):
            request = requests[turn * num_clips + number]
            for place in generator(1, turn, number).permutation(len(able)):
                contender = able[place]
                sums[contender.name] += seconds_of(lambda c=contender, r=request: c.read(r), torch.device("cpu"))  # type: ignore[misc]
        for name, total in sums.items():
            seconds[name].append(total / num_clips)
    return FileTimes(path.name, seconds, refused)


def _random_clip(path: Path, scanned: ScannedVideo, number: int) -> Request:
    """A random start and a box of 30 to 100 % of the frame, as training draws them."""
    rng = generator(2, number)
    with open_video(path, scanned=scanned) as video:
        count, height, width = len(video.times_s), video.height, video.width
    start = int(rng.integers(max(1, count - (NUM_FRAMES - 1) * STRIDE)))
    indices = span_indices(start, NUM_FRAMES, STRIDE, count, "hold")
    scale = float(np.sqrt(rng.uniform(0.3, 1.0)))
    box_height, box_width = max(2, int(height * scale)), max(2, int(width * scale))
    top, left = int(rng.integers(height - box_height + 1)), int(rng.integers(width - box_width + 1))
    return Request(path, scanned, View(indices, Box(top, left, box_height, box_width)))
