"""Folders of numbered images as videos: `img_00001.jpg`, `46GP8-000001.jpg`, `000001.png`."""

import os
import re
from itertools import pairwise
from pathlib import Path

import numpy as np

from vidtl.video.images import IMAGE_SUFFIXES, StillReader, decode_image, image_size
from vidtl.video.reader import UnreadableVideo
from vidtl.video.safety import checked_path

_NUMBERED = re.compile(r"(?P<name>.*?)(?P<number>\d+)", re.DOTALL)

# Optical flow that extraction tools (denseflow, as mmaction2 uses it) put beside the frames.
_FLOW = re.compile(r"flow_[xy]_?")


class FrameFolderReader(StillReader):
    """One folder; frame i of N is the image with the i-th number, shown at i / `frame_rate` seconds."""

    def __init__(self, path: Path, frame_rate: float, root: Path | None) -> None:
        """List a folder; of the images only the first one's header is read.

        Args:
            path: the folder, with all links followed.
            frame_rate: frames per second.
            root: folder that every image must lie in once links are followed; None allows any.

        Raises:
            UnreadableVideo: no image in it, images without numbers or with equal ones, or a gap in them.
        """
        self._files = _numbered_images(path)
        self._root = root
        size = image_size(checked_path(self._files[0], root), self._files[0])
        super().__init__(path, size, np.arange(len(self._files)) / frame_rate, frame_rate)

    def frame(self, number: int) -> np.ndarray:
        """One image; UnreadableVideo names it where it is damaged, outside the root or of another size."""
        file = self._files[number]
        pixels = decode_image(checked_path(file, self._root), file)
        if pixels.shape[:2] != (self.height, self.width):
            height, width, _ = pixels.shape
            raise UnreadableVideo(file, f"{width} x {height} pixels among frames of {self.width} x {self.height}")
        return pixels


def _numbered_images(folder: Path) -> list[Path]:
    """The images of a folder in the order of their numbers, which leave none out."""
    try:
        names = [name for name in os.listdir(folder) if name.lower().endswith(IMAGE_SUFFIXES)]
    except OSError as error:
        raise UnreadableVideo(folder, error.strerror or str(error)) from error
    series: dict[str, dict[int, str]] = {}
    for name in sorted(names):
        parsed = _NUMBERED.fullmatch(name.rpartition(".")[0])
        if name.startswith(".") or (parsed and _FLOW.fullmatch(parsed["name"])):
            continue
        if parsed is None:
            raise UnreadableVideo(folder, f"{name!r} has no number at the end of its name")
        frames = series.setdefault(parsed["name"], {})
        number = int(parsed["number"])
        if number in frames:
            raise UnreadableVideo(folder, f"{frames[number]!r} and {name!r} have the same number")
        frames[number] = name
    if len(series) != 1:
        found = "no images" if not series else f"images of several series: {', '.join(map(repr, sorted(series)[:5]))}"
        raise UnreadableVideo(folder, found)
    (frames,) = series.values()
    numbers = sorted(frames)
    absent = numbers[-1] - numbers[0] + 1 - len(numbers)
    if absent:
        gap = next(number + 1 for number, after in pairwise(numbers) if after != number + 1)
        raise UnreadableVideo(folder, f"image {gap} is missing, {absent} in all between {numbers[0]} and {numbers[-1]}")
    return [folder / frames[number] for number in numbers]
