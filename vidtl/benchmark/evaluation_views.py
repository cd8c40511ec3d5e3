"""What opening a video once for all its views saves, beside opening it once per view.

Axes: V views (clips x crops), T frames.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from vidtl.benchmark.rounds import seconds_of
from vidtl.config import ClipConfig
from vidtl.data.protocols import Protocol, view_boxes, view_indices
from vidtl.video import VideoReader, View, open_video
from vidtl.video.reader import PixelFormat


@dataclass(frozen=True, kw_only=True)
class ViewTimes:
    """CPU seconds of each round for all views of one file."""

    num_views: int
    num_frames: int
    """Of the file."""
    together: list[float]
    """One open, one pass over the file: what evaluation does."""
    apart: list[float]
    """One open per view with the same reader, which seeks and skips what the view does not need."""
    from_start: list[float]
    """One open per view, decoded from the first frame to the view's last one, as PyAV is commonly used."""

    def clips_per_s(self, seconds: list[float]) -> float:
        """Views per CPU second, by the median round."""
        return self.num_views / float(np.median(seconds))


def time_views(path: Path, decoder: str, protocol: Protocol, clip: ClipConfig, num_rounds: int) -> ViewTimes:
    """Read the views of a protocol both ways, in turns, after one round to warm up that also compares the pixels.

    Raises:
        UnreadableVideo: the file cannot be read.
        RuntimeError: the two ways give different pixels (a bug of ours).
    """
    with open_video(path, decoder) as video:
        views, num_frames = _views(video, protocol, clip), len(video.times_s)

    pixel_format: PixelFormat = "planar" if decoder == "pyav" else "rgb"

    def together() -> np.ndarray:
        with open_video(path, decoder) as video:
            return video.read(views, clip.frame_size, pixel_format)

    def apart() -> np.ndarray:
        found = []
        for view in views:
            with open_video(path, decoder) as video:
                found.append(video.read([view], clip.frame_size, pixel_format))
        return np.concatenate(found)

    def from_start() -> np.ndarray:
        return np.stack([_read_from_start(path, view, clip.frame_size) for view in views])

    if not np.array_equal(together(), apart()):
        raise RuntimeError(f"{path}: views read together and apart differ")
    from_start()
    times: dict[Callable[[], np.ndarray], list[float]] = {together: [], apart: [], from_start: []}
    for _ in range(num_rounds):
        for way, seconds in times.items():
            seconds.append(seconds_of(way, torch.device("cpu")))
    return ViewTimes(
        num_views=len(views),
        num_frames=num_frames,
        together=times[together],
        apart=times[apart],
        from_start=times[from_start],
    )


def _read_from_start(path: Path, view: View, frame_size: tuple[int, int]) -> np.ndarray:
    """uint8 [T, H, W, 3] without a seek; upright files only."""
    wanted, frames = set(view.indices.tolist()), {}
    top, left, height, width = view.box
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                rgb = frame.to_ndarray(format="rgb24")[top : top + height, left : left + width]
                frames[number] = cv2.resize(rgb, frame_size[::-1], interpolation=cv2.INTER_LINEAR)
            if number == max(wanted):
                break
    return np.stack([frames[number] for number in view.indices.tolist()])


def _views(video: VideoReader, protocol: Protocol, clip: ClipConfig) -> list[View]:
    clips = view_indices(protocol, len(video.times_s), clip, video.fps)
    boxes = view_boxes(protocol, video.height, video.width, clip)
    return [View(indices, box) for indices in clips for box in boxes]
