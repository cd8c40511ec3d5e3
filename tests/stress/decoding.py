"""Experiments with files: fuzzed ones, and decodes by the thousand in one process."""

import os
import random
import select
import signal
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from benchmarks.conformance import available_decoders
from tests.stress.outcome import Bench, Outcome
from vidtl.prepare.scan import ScanJob, scan_file
from vidtl.video import Box, UnreadableVideo, View, open_video

HANG_S = 10
CHUNK = 50
"""Files that one child looks into."""


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
    """Flipped bytes, a range of zeros, a cut, a swap of two ranges, or a range twice."""
    data, size = bytearray(content), len(content)
    kind = rng.choice(["flip", "flip", "flip_head", "zeros", "cut", "swap", "repeat"])
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
    else:
        data[start:start] = data[start : start + length]
    return bytes(data)


def verdict(path: Path, decoder: str) -> str:
    """`read`, `refused`, or what is wrong: a message without the path, frames other in number than the manifest's."""
    entry = scan_file(ScanJob(path.parent, path.name, "frames"))
    try:
        with open_video(path, decoder) as video:
            _read_some(video)
    except UnreadableVideo as error:
        if not str(error).startswith(f"{path}: ") or "\n" in str(error):
            return f"badly told: {error}"
    if entry.status != "ok":
        return "refused"  # by the manifest, whatever opening it again would say
    try:
        with open_video(path, decoder, scanned=entry.scanned()) as video:
            if len(video.times_s) != entry.num_frames:
                return f"{len(video.times_s)} frames, {entry.num_frames} in the manifest"
            _read_all(video)
    except UnreadableVideo:
        return "refused"
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.best("video")
        stream.thread_type = "NONE"
        decoded = sum(1 for _ in container.decode(stream))
    return "read" if decoded == entry.num_frames else f"{decoded} frames decode, {entry.num_frames} in the manifest"


def _read_some(video) -> None:
    last = len(video.times_s) - 1
    video.read([View(np.array([last, 0, last // 2]), Box(0, 0, video.height, video.width))], (16, 16), "rgb")


def _read_all(video) -> None:
    video.read([View(np.arange(len(video.times_s)), Box(0, 0, video.height, video.width))], (16, 16), "rgb")


def fuzz_files(folder: Path, decoder: str, count: int, seed: int, outcome: Outcome) -> None:
    """Judge `count` mutated files in killable children, and count what was read and refused."""
    seeds = make_seeds(folder)

    def look_into(number: int) -> str:
        rng = random.Random(f"{seed} {decoder} {number}")
        original = seeds[number % len(seeds)]
        path = folder / f"{decoder}-{number}{original.suffix}"
        path.write_bytes(mutated(original.read_bytes(), rng))
        result = verdict(path, decoder)
        path.unlink()
        return result

    done = 0
    while done < count:
        results, ending = _in_chunk(look_into, range(done, min(done + CHUNK, count)), HANG_S)
        for number, result in zip(range(done, count), [*results, *([ending] if ending else [])], strict=False):
            outcome.judge(f"{decoder} {number}: {result}", result in ("read", "refused"))
            key = f"{decoder} {result}"
            outcome.figures[key] = outcome.figures.get(key, 0) + 1
        done += len(results) + bool(ending)


def _in_chunk(look_into: Callable[[int], str], numbers: range, hang_s: float) -> tuple[list[str], str]:
    """Results of one child, and how it ended early if it did: killed after `hang_s` of silence, or by a crash."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 2)
        for number in numbers:
            try:
                result = look_into(number)
            except BaseException as error:
                result = f"{type(error).__name__}: {error}"
            os.write(writer, (" ".join(result.split())[:300] + "\n").encode("utf-8", "replace"))
        os._exit(0)
    os.close(writer)
    text, ending = b"", ""
    while True:
        ready, _, _ = select.select([reader], [], [], hang_s)
        if not ready:
            os.kill(child, signal.SIGKILL)
            ending = f"hung for {hang_s} s"
            break
        part = os.read(reader, 1 << 16)
        if not part:
            break
        text += part
    os.close(reader)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    results = text.decode().splitlines()
    if not ending and len(results) < len(numbers):
        ending = f"the process ended with {code}"
    return results, ending


def fuzz(bench: Bench) -> Outcome:
    """A thousand mutated files for each decoder."""
    outcome = Outcome()
    for decoder, problem in available_decoders(make_seeds(bench.folder)[0]).items():
        if not problem:
            fuzz_files(bench.folder, decoder, bench.scaled(1000), bench.seed, outcome)
    return outcome


def leaks(bench: Bench) -> Outcome:
    """Five thousand clips in one process for each decoder: memory and open files after the first tenth."""
    outcome = Outcome()
    seeds = make_seeds(bench.folder)
    for decoder, problem in available_decoders(seeds[0]).items():
        if problem:
            continue
        able = [path for path in seeds if verdict(path, decoder) == "read"]
        lines, ending = _in_chunk(
            lambda count, decoder=decoder, able=able: _decode_often(able, decoder, count),
            range(bench.scaled(5000), bench.scaled(5000) + 1),
            hang_s=1800,
        )
        slope, more_files = (float(value) for value in lines[0].split()) if lines and not ending else (np.inf, np.inf)
        outcome.figures |= {f"{decoder} kB per clip": slope, f"{decoder} more open files": more_files}
        outcome.judge(f"{decoder}: {slope:.1f} kB per clip, {ending}", slope <= 10)
        outcome.judge(f"{decoder}: {more_files:g} more open files", more_files == 0)
    return outcome


def _decode_often(paths: list[Path], decoder: str, count: int) -> str:
    """Growth of memory by the least-squares line, kB per clip, and of open files, both after the first tenth."""
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
