"""Every backend's frames of a file against those of a plain decode from start to end."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from vidtl.errors import UserError
from vidtl.runtime.seeding import generator
from vidtl.video import DECODERS, Box, PixelFormat, UnreadableVideo, View, open_video
from vidtl.video.clip import ClipBuffer
from vidtl.video.color import Converter
from vidtl.video.pyav import PyAVReader

FRAME_SIZE = (64, 64)
NUM_RANDOM = 5

TOLERANCE = 0.5
"""Grey levels, mean over a frame: what a resize of turned frames or another colour matrix rounds differently. A
neighbouring frame differs by more, unless nothing moves."""


class Verdict(NamedTuple):
    """What became of one file with one backend."""

    outcome: str
    """`exact`: bit for bit; `rounding`: within `TOLERANCE`; `WRONG`; `refused`; `not checked`."""
    difference: float | None
    """Largest mean difference of a frame, in grey levels; None where refused or not checked."""
    reason: str = ""
    """Why it was refused or not checked."""


def available_decoders(any_video: Path) -> dict[str, str]:
    """Backends, with why they cannot be used, or an empty text."""
    state = {}
    for decoder in DECODERS:
        try:
            open_video(any_video, decoder).close()
            state[decoder] = ""
        except UserError as error:
            state[decoder] = str(error)
        except UnreadableVideo:
            state[decoder] = ""
    return state


def check_file(path: Path, decoders: Mapping[str, str]) -> dict[str, Verdict]:
    """The first, middle and last frame and some at random places, together and each alone, through each backend.

    What PyAV refuses has no plain decode that the others could be compared with.
    """
    usable = [decoder for decoder, problem in decoders.items() if not problem]
    try:
        with open_video(path) as video:
            if not isinstance(video, PyAVReader):
                return dict.fromkeys(usable, Verdict("not checked", None, "it is an image"))
            view = _view(video)
            expected = plain_decode(video, view)
            planar = bool(np.array_equal(video.read([view], FRAME_SIZE, "planar"), expected["planar"]))
        planar = planar and np.array_equal(_one_by_one(path, "pyav", view, "planar"), expected["planar"])
    except UnreadableVideo as error:
        not_checked = dict.fromkeys(usable, Verdict("not checked", None, "PyAV refuses it"))
        return not_checked | {"pyav": Verdict("refused", None, error.reason)}
    return {decoder: _verdict(path, decoder, view, expected["rgb"], planar or decoder != "pyav") for decoder in usable}


def _view(video: PyAVReader) -> View:
    count = len(video.times_s)
    numbers = generator(0, count).integers(count, size=NUM_RANDOM)
    indices = generator(1, count).permutation(np.concatenate([[0, count // 2, count - 1], numbers]))
    box = Box(video.height // 10, video.width // 7, max(2, video.height // 2), max(2, video.width // 2))
    return View(indices, box)


def plain_decode(video: PyAVReader, view: View) -> dict[str, np.ndarray]:
    """The same crop and resize of frames that PyAV yields one after the other, with no seek and nothing skipped."""
    source = video.source
    clips = {form: ClipBuffer([view], FRAME_SIZE, form, source.geometry()) for form in ("planar", "rgb")}  # type: ignore[arg-type]
    converters = {form: Converter(source.coded_size, source.color, form) for form in clips}  # type: ignore[arg-type]
    wanted = set(view.indices.tolist())
    with av.open(str(video.path)) as container:
        stream = container.streams.best("video")
        stream.thread_type = "NONE"
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                for form, clip in clips.items():
                    clip.put(number, converters[form].planes(frame))
            if number == max(wanted):
                break
    return {form: clip.array for form, clip in clips.items()}


def _one_by_one(path: Path, decoder: str, view: View, form: PixelFormat) -> np.ndarray:
    """The same frames, each from a reader that has read nothing before: [1, T, ...]."""
    frames = []
    for number in view.indices:
        with open_video(path, decoder) as video:
            frames.append(video.read([View(np.array([number]), view.box)], FRAME_SIZE, form)[0])
    return np.concatenate(frames)[None]


def _verdict(path: Path, decoder: str, view: View, expected: np.ndarray, planar_equal: bool) -> Verdict:
    try:
        with open_video(path, decoder) as video:
            found = np.concatenate([video.read([view], FRAME_SIZE, "rgb"), _one_by_one(path, decoder, view, "rgb")])
    except UnreadableVideo as error:
        return Verdict("refused", None, error.reason.replace(str(path), path.name))
    expected = np.concatenate([expected, expected])
    difference = float(np.abs(found.astype(int) - expected.astype(int)).mean(axis=(2, 3, 4)).max())
    if np.array_equal(found, expected) and planar_equal:
        return Verdict("exact", 0.0)
    return Verdict("rounding" if difference < TOLERANCE and planar_equal else "WRONG", difference)
