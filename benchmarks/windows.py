"""Measure sliding windows of long generated videos: one pass over the file, its memory, and timesteps encoded once.

    python -m benchmarks.windows --output windows.json

Windows that overlap by half are read in one pass, or by a seek to each, in one process and by the loader with 1 and 2
workers: CPU seconds per window, peak memory of all in MiB.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import suppress
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import av
import cv2
import numpy as np
import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

from vidtl.annotations.records import ClassNames
from vidtl.annotations.video_files import VideoFile, records_of_files
from vidtl.config import ClipConfig, DataConfig, ModelConfig, TokenLearnerConfig
from vidtl.config.checks import require
from vidtl.data.loader import EvalLoader
from vidtl.data.protocols import get_protocol
from vidtl.data.windows import Hop, sliding_windows
from vidtl.models import build_model
from vidtl.runtime.signals import run_tool
from vidtl.runtime.timing import describe_measurement, measure_seconds

CLIP = ClipConfig(num_frames=16, stride=2)
FPS, CPU = 25, torch.device("cpu")


def write_video(path: Path, num_frames: int, key_frames: int, repeats: int) -> None:
    """Write `repeats` times the same turning picture, encoded once, with a key frame every so many frames."""
    texture = cv2.resize(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8), (320, 240))
    packets: list[tuple[Any, int, int]] = []
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "x264-params": f"keyint={key_frames}:min-keyint={key_frames}:scenecut=0"}
        stream: Any = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(num_frames + 1):
            turned = cv2.warpAffine(texture, cv2.getRotationMatrix2D((160, 120), number / 2, 2.0), (320, 240))
            frame = av.VideoFrame.from_ndarray(turned, format="rgb24") if number < num_frames else None
            packets += [(packet, packet.pts, packet.dts) for packet in stream.encode(frame)]
        for first, (packet, pts, dts) in product(range(0, repeats * num_frames, num_frames), packets):
            packet.stream, packet.pts, packet.dts = stream, pts + first, dts + first
            packet.time_base = stream.codec_context.time_base  # which writing changes
            container.mux(packet)


def read(paths: Sequence[Path], count: int, way: str, workers: int) -> float:
    """Read the last `count` windows of each file, or with 0 all: CPU seconds per window; from last to first to seek."""
    data = DataConfig(num_workers=workers, manifest="none")
    records = records_of_files([VideoFile(path, "video") for path in paths], ClassNames(("any",)), False, None)
    windows = sliding_windows(records, CLIP, data, Hop(frames=CLIP.num_frames * CLIP.stride // 2)).records
    numbers = np.arange(len(windows)).reshape(len(paths), -1)[:, -count:]
    order = {"pass": numbers, "seek": numbers[:, ::-1]}[way].flatten().tolist()
    views: Any = (loader := EvalLoader(windows, get_protocol("center"), CLIP, data, order))
    if workers == 0:
        loader.dataset.__getitems__(order[-1:])  # opens the file
        size = loader.videos_per_batch()
        views = (v for i in range(0, len(order), size) for v in loader.dataset.__getitems__(order[i : i + size]))
    begin = sum(os.times()[:4])  # with workers, once they have ended
    for each in views:
        require(each.failure is None, "window", each.index, "readable ones")
    return (sum(os.times()[:4]) - begin) / len(order)


def read_all(paths: Sequence[Path]) -> tuple[float, float]:
    """Read all windows in another process with 2 workers: peak memory of all processes, and `read`."""
    peaks, this = [], psutil.Process()
    with ProcessPoolExecutor(1) as pool:
        result = pool.submit(read, paths, 0, "pass", 2)
        while not wait([result], 0.1 if not peaks else 0.5).done or not peaks:
            with suppress(psutil.Error):  # one of them has ended
                peaks.append(sum(p.memory_full_info().pss for p in (this, *this.children(recursive=True))))
    return max(peaks) / 2**20, result.result()


def compare(folder: Path, key_frames: int, options: argparse.Namespace) -> dict[str, Any]:
    """Compare the ways to read a long file, by workers, and one pass over it with 30 over a thirtieth of it."""
    short, long = (folder / f"{name}{key_frames}.mp4" for name in ("short", "long"))
    for path, repeats in ((short, 1), (long, 30)):
        write_video(path, options.minutes * 60 * FPS // 30, key_frames, repeats)
    found: dict[str, Any] = {"key_frames": key_frames, "short": read_all([short] * 30), "long": read_all([long])}
    print("a long file / 30 short ones:", *(f"{b / a:.3f}" for a, b in zip(found["short"], found["long"], strict=True)))
    for workers in (0, 1, 2):
        rows = found[f"{workers}"] = [
            {way: read([long], options.windows, way, workers) for way in ("pass", "seek")}
            for _ in range(options.rounds)
        ]
        ratio = median(row["seek"] / row["pass"] for row in rows)
        print(f"key frame every {key_frames}, {workers} workers: a seek to each takes {ratio:.2f} times a pass")
    return found


def time_timesteps(overlap: int, rounds: int, side: int = 224) -> dict[str, Any]:
    """Encode all timesteps of 8 windows, or each distinct one: multiply-adds of B/16x2, CPU seconds of Ti/16x2."""
    clip, none = ClipConfig(num_frames=32, frame_size=(side, side)), TokenLearnerConfig(num_tokens=0)
    timesteps_Bt = torch.arange(8)[:, None] * (16 * (100 - overlap) // 100) + torch.arange(16)
    distinct = torch.rand(int(timesteps_Bt.max()) + 1, 2, 3, side, side)
    inputs = [(torch.rand(8, 32, 3, side, side),), (distinct, timesteps_Bt)]
    large = build_model(ModelConfig(size="B", token_learner=none), clip, 400).to("meta")
    small = build_model(ModelConfig(size="Ti", token_learner=none), clip, 400).eval()
    flops = []
    with torch.inference_mode():
        for arguments in inputs:
            with FlopCounterMode(display=False) as counter:
                large(*(tensor.to("meta") for tensor in arguments))
            flops.append(counter.get_total_flops())
        seconds = [[measure_seconds(lambda a=x: small(*a), CPU) for x in inputs] for _ in range(rounds)]
    ratios = [once / all_ for all_, once in [flops, *seconds]]
    print(f"timesteps once, overlap {overlap} %: multiply-adds {ratios[0]:.3f}, time {median(ratios[1:]):.3f}")
    return {"overlap": overlap, "multiply_adds": [count // 2 for count in flops], "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60, help="length of the long file")
    parser.add_argument("--windows", type=int, default=512, help="windows of each comparison")
    parser.add_argument("--rounds", type=int, default=3, help="comparisons, of which the median is taken")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    for name in ("minutes", "windows", "rounds"):
        require(getattr(options, name) >= 1, f"--{name}", getattr(options, name), "1 or more")
    require(options.output.parent.is_dir(), "--output", str(options.output), "a file in a folder")
    torch.set_num_threads(1)
    report = describe_measurement("-m benchmarks.windows")
    report["timesteps"] = [time_timesteps(overlap, options.rounds) for overlap in (50, 75)]
    with tempfile.TemporaryDirectory() as folder:
        report["files"] = [compare(Path(folder), key_frames, options) for key_frames in (12, 60, 250)]
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_tool(main)
