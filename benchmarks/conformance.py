"""Compare each decoder's frames of each file with a plain decode from start to end.

    python -m benchmarks.conformance FOLDER --output conformance.csv

Exits with 1 if a decoder gives wrong frames or fails.
"""

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from rich.progress import track

from vidtl.config.checks import require
from vidtl.errors import UserError
from vidtl.runtime.files import say, whole_file
from vidtl.runtime.logging import installed_versions
from vidtl.runtime.seeding import generator
from vidtl.runtime.signals import run_tool
from vidtl.video import DECODERS, Box, UnreadableVideo, View, open_video
from vidtl.video.clip import ClipBuffer, Converter
from vidtl.video.pyav import PyAVReader
from vidtl.video.reader import PixelFormat

EXIT_WRONG = 1
NUM_RANDOM = 5

TOLERANCE = 0.5
"""Gray levels, mean over a frame: rounding of another color matrix. Neighboring frames differ by more."""


class Verdict(NamedTuple):
    """Result of one file with one decoder."""

    outcome: str
    """`exact`: bit for bit; `rounding`: within `TOLERANCE`; `WRONG`; `refused`; `failed`; `not checked`."""
    difference: float | None
    """Largest mean difference of a frame, in gray levels."""
    reason: str = ""

    def __str__(self) -> str:
        if self.reason:
            return f"{self.outcome}: {self.reason}"
        return self.outcome if not self.difference else f"{self.outcome} ({self.difference:.2f})"


def available_decoders(any_video: Path) -> list[str]:
    """List the decoders that can be used, and print why others cannot."""
    found = []
    for decoder in DECODERS:
        try:
            with suppress(UnreadableVideo):
                open_video(any_video, decoder).close()
            found.append(decoder)
        except UserError as error:
            say(f"left out: {decoder}: {error}")
    return found


def check_file(path: Path, decoders: Collection[str]) -> dict[str, Verdict]:
    """Read some frames, together and each alone, with each decoder, but for files that PyAV refuses."""
    try:
        with open_video(path) as video:
            if not isinstance(video, PyAVReader):
                return dict.fromkeys(decoders, Verdict("not checked", None, "it is an image"))
            view = _view(video)
            expected = plain_decode(video, view)
            planar = bool(np.array_equal(video.read([view], view.box[2:], "planar"), expected["planar"]))
        planar = planar and np.array_equal(_one_by_one(path, "pyav", view, "planar"), expected["planar"])
    except UnreadableVideo as error:
        not_checked = dict.fromkeys(decoders, Verdict("not checked", None, "PyAV refuses it"))
        return not_checked | {"pyav": Verdict("refused", None, error.reason)}
    except Exception as error:  # of one file, which the results of the others do not depend on
        return dict.fromkeys(decoders, Verdict("failed", None, f"{type(error).__name__}: {error}"))
    return {name: _verdict(path, name, view, expected["rgb"], planar or name != "pyav") for name in decoders}


def _view(video: PyAVReader) -> View:
    """Choose frames and a box that is read at its own size; even, so that the planes of color are not resized."""
    count = len(video.times_s)
    numbers = generator(0, count).integers(count, size=NUM_RANDOM)
    indices = generator(1, count).permutation(np.concatenate([[0, count // 2, count - 1], numbers]))
    box = Box(video.height // 20 * 2, video.width // 14 * 2, video.height // 4 * 2 or 2, video.width // 4 * 2 or 2)
    return View(indices, box)


def plain_decode(video: PyAVReader, view: View) -> dict[str, np.ndarray]:
    """Crop and resize frames that PyAV yields one after the other, without seeking or skipping, by pixel format."""
    source = video.source
    clips = {form: ClipBuffer([view], view.box[2:], form, source.geometry()) for form in ("planar", "rgb")}
    converters = {form: Converter(source.coded_size, source.color, form) for form in clips}
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
    frames = []
    for number in view.indices:
        with open_video(path, decoder) as video:
            frames.append(video.read([View(np.array([number]), view.box)], view.box[2:], form)[0])
    return np.concatenate(frames)[None]


def _verdict(path: Path, decoder: str, view: View, expected: np.ndarray, planar_equal: bool) -> Verdict:
    try:
        with open_video(path, decoder) as video:
            found = np.concatenate([video.read([view], view.box[2:], "rgb"), _one_by_one(path, decoder, view, "rgb")])
    except UnreadableVideo as error:
        return Verdict("refused", None, error.reason.replace(str(path), path.name))
    except Exception as error:
        return Verdict("failed", None, f"{type(error).__name__}: {error}")
    expected = np.concatenate([expected, expected])
    difference = float(np.abs(found.astype(int) - expected.astype(int)).mean(axis=(2, 3, 4)).max())
    if np.array_equal(found, expected) and planar_equal:
        return Verdict("exact", 0.0)
    return Verdict("rounding" if difference < TOLERANCE and planar_equal else "WRONG", difference)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of videos")
    parser.add_argument("--output", type=Path, help="CSV file to write, one line per file")
    options = parser.parse_args()
    require(not options.output or options.output.parent.is_dir(), "--output", str(options.output), "a file in a folder")
    paths = sorted(path for path in options.folder.iterdir() if path.is_file()) if options.folder.is_dir() else []
    if not paths:
        raise UserError(f"{options.folder} is no folder with files; allowed: a folder of videos")
    decoders = available_decoders(paths[0])
    results = {path.name: check_file(path, decoders) for path in track(paths, "decoding", transient=True)}
    if options.output:
        with whole_file(options.output) as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["file", *decoders])
            writer.writerows([name, *(found[each] for each in decoders)] for name, found in results.items())
    for name, found in results.items():
        for decoder, verdict in found.items():
            if verdict.outcome not in ("exact", "rounding"):
                say(f"{name}: {decoder}: {verdict}")
    counts = {decoder: Counter(found[decoder].outcome for found in results.values()) for decoder in decoders}
    for decoder, outcomes in counts.items():
        print(f"{decoder}: " + ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common()))
    print(f"versions: {', '.join(f'{name} {v}' for name, v in installed_versions(('av', *decoders)).items())}")
    print("FFmpeg in av: " + ", ".join(f"{n} {'.'.join(map(str, v))}" for n, v in av.library_versions.items()))
    if any(outcomes["WRONG"] + outcomes["failed"] for outcomes in counts.values()):
        sys.exit(EXIT_WRONG)


if __name__ == "__main__":
    run_tool(main)
