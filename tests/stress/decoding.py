"""Experiments with files: fuzzed ones, and decodes by the thousand in one process."""

import os
import random
import re
import struct
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import numpy as np

from benchmarks.conformance import available_decoders
from tests.stress.outcome import Bench, Outcome, in_fork
from vidtl.prepare.scan import ScanJob, scan_file
from vidtl.video import Box, UnreadableVideo, View, open_video

HANG_S = 10


def make_seeds(folder: Path) -> list[Path]:
    """Small files of three containers, with B-frames where the codec has them."""
    kinds = {"seed.mp4": ("libx264", "12"), "seed.mkv": ("libx264", "50"), "seed.avi": ("mpeg4", "12")}
    paths = []
    for name, (codec, gop) in kinds.items():
        paths.append(folder / name)
        with av.open(str(paths[-1]), "w") as container:
            stream = container.add_stream(codec, rate=25, options={"g": gop, "bf": "2", "threads": "1"})
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            rows, columns = np.mgrid[:64, :96]
            for number in range(48):
                picture = np.stack([columns * 2 + number * 5, rows * 3, columns + rows + number], axis=-1) % 256
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")))
            container.mux(stream.encode(None))
    return paths


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Flipped bytes, a range of zeros, a cut, a swap of two ranges, a range twice, or an extreme number."""
    data, size = bytearray(content), len(content)
    kind = rng.choice(["flip", "flip", "flip_head", "zeros", "cut", "swap", "repeat", "number", "number"])
    start, length = rng.randrange(size), rng.randrange(1, 2000)
    if kind.startswith("flip"):
        reach = size if kind == "flip" else min(size, 4000)
        for _ in range(rng.choice([1, 4, 20])):
            data[rng.randrange(reach)] = rng.randrange(256)
    elif kind == "zeros":
        data[start : start + length] = bytes(len(data[start : start + length]))
    elif kind == "cut":
        del data[start:]
    elif kind == "swap":
        other = rng.randrange(size)
        part = data[other : other + length]
        data[other : other + length] = data[start : start + length]
        data[start : start + length] = part
    elif kind == "number":  # near the name of an MP4 box, if there are any
        boxes = [match.start() for match in re.finditer(rb"moov|trak|mdhd|tkhd|st[a-z]{2}|avcC|elst|edts|mvhd", data)]
        place = max(0, rng.choice(boxes) + rng.randrange(-4, 24)) if boxes else start
        data[place : place + 4] = struct.pack(">I", rng.choice([0, 1, 2**28, 2**31 - 1, 2**32 - 1]))
    else:
        data[start:start] = data[start : start + length]
    return bytes(data)


def verdict(path: Path, decoder: str) -> str:
    """Return `read`, `refused`, or the problem: a message without the path, or another number of frames."""
    entry = scan_file(ScanJob(path.parent, path.name, "frames"))
    try:
        with open_video(path, decoder) as video:
            last = len(video.times_s) - 1
            _read(video, [last, 0, last // 2])
    except UnreadableVideo as error:
        if not str(error).startswith(f"{path}: ") or "\n" in str(error):
            return f"bad message: {error}"
    if entry.status != "ok":
        return "refused"  # by the manifest
    try:
        with open_video(path, decoder, scanned=entry.scanned()) as video:
            if len(video.times_s) != entry.num_frames:
                return f"{len(video.times_s)} frames, {entry.num_frames} in the manifest"
            _read(video, range(entry.num_frames))
    except UnreadableVideo:
        return "refused"
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.best("video")
        stream.thread_type = "NONE"
        decoded = sum(1 for _ in container.decode(stream))
    return "read" if decoded == entry.num_frames else f"{decoded} frames decode, {entry.num_frames} in the manifest"


def _read(video, frames) -> None:
    video.read([View(np.array(frames), Box(0, 0, video.height, video.width))], (16, 16), "rgb")


def fuzz(bench: Bench) -> Outcome:
    """Mutated MP4, MKV and AVI files through each decoder: no crash, no wait over 10 s, the path in every message, and
    never another number of frames than in the manifest."""
    outcome = Outcome()
    seeds = make_seeds(bench.folder)
    for decoder in available_decoders(seeds[0]):
        for number in range(bench.scaled(1000)):
            result = in_silent_child(partial(judge_mutated, seeds, decoder, bench.seed, number), HANG_S)
            outcome.judge(f"{decoder} {number}: {result}", result in ("read", "refused"))
            outcome.figures[f"{decoder} {result}"] = outcome.figures.get(f"{decoder} {result}", 0) + 1
    return outcome


def judge_mutated(seeds: list[Path], decoder: str, seed: int, number: int) -> str:
    rng, original = random.Random(f"{seed} {decoder} {number}"), seeds[number % len(seeds)]
    path = original.with_name(f"{decoder}-{number}{original.suffix}")
    path.write_bytes(mutated(original.read_bytes(), rng))
    result = verdict(path, decoder)
    path.unlink()
    return result


def in_silent_child(action: Callable[[], str], limit_s: float) -> str:
    """Return the result of an action in a forked process, or the fault that ended it."""
    with tempfile.TemporaryDirectory() as folder:
        log, result = Path(folder, "log"), Path(folder, "result")
        _, fault, _ = in_fork(lambda: result.write_text(action()), log, limit_s)
        return result.read_text() if result.exists() else f"fault: {fault}"


def leaks(bench: Bench) -> Outcome:
    """Clips by the thousand in one process through each decoder: <= 10 kB of memory per clip, no more open files."""
    outcome = Outcome()
    seeds, count = make_seeds(bench.folder), bench.scaled(5000)
    for decoder in available_decoders(seeds[0]):
        able = [path for path in seeds if verdict(path, decoder) == "read"]
        result = in_silent_child(partial(_decode_often, able, decoder, count), limit_s=1800)
        slope, more_files = map(float, result.split()) if ":" not in result else (np.inf, np.inf)
        outcome.figures |= {f"{decoder} kB per clip": slope, f"{decoder} more open files": more_files}
        outcome.judge(f"{decoder}: {slope:.1f} kB per clip, {result}", slope <= 10)
        outcome.judge(f"{decoder}: {more_files:g} more open files", more_files == 0)
    return outcome


def _decode_often(paths: list[Path], decoder: str, count: int) -> str:
    """Return the growth of memory by a least-squares line, kB per clip, and of open files, after the first tenth."""
    rng, memory_kb, files = random.Random(0), [], []
    for number in range(count):
        with open_video(paths[number % len(paths)], decoder) as video:
            start = rng.randrange(len(video.times_s) - 16)
            view = View(np.arange(start, start + 16), Box(0, 0, video.height, video.width))
            video.read([view], (32, 32), "rgb")
        if number >= count // 10:
            memory_kb.append(_resident_kb())
            files.append(len(os.listdir("/proc/self/fd")))
    slope = np.polyfit(np.arange(len(memory_kb)), memory_kb, 1)[0]
    return f"{slope:.4f} {files[-1] - files[0]}"


def _resident_kb() -> float:
    with open("/proc/self/statm", encoding="ascii") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024
