"""`benchmark.py views VIDEO...`: what opening a video once for all its views saves in evaluation."""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import torch

from vidtl.benchmark.evaluation_views import ViewTimes, time_views
from vidtl.config import ClipConfig
from vidtl.data.protocols import PROTOCOLS, Protocol, centre_crop, get_protocol
from vidtl.errors import UserError
from vidtl.runtime.escape import printable
from vidtl.video import UnreadableVideo


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("videos", nargs="+", type=Path, help="upright files to read, each for itself")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="vivit_4x3", help="views to take")
    parser.add_argument("--one_crop", action="store_true", help="only the centre of each clip: 4 views of vivit_4x3")
    parser.add_argument("--num_frames", type=int, default=32, help="frames per clip")
    parser.add_argument("--stride", type=int, default=2, help="from frame to frame of a clip")
    parser.add_argument("--decoder", choices=["pyav", "decord", "torchcodec"], default="pyav", help="decoding library")
    parser.add_argument("--rounds", type=int, default=5, help="turns of either way after one to warm up")
    parser.add_argument("--output", type=Path, help="JSON file to write, with every round's seconds")


def main(options: argparse.Namespace) -> None:
    """Time each file and print a line for it."""
    if options.rounds < 1:
        raise UserError(f"--rounds is {options.rounds}; allowed: 1 or more")
    torch.set_num_threads(1)
    protocol = get_protocol(options.protocol)
    if options.one_crop:
        protocol = replace(protocol, num_crops=1, crops=centre_crop)
    clip = ClipConfig(num_frames=options.num_frames, stride=options.stride)
    print("clips per CPU second: one open for all views, one open per view (same reader), per view from the start")
    results = []
    for path in options.videos:
        times = time_file(path, options, protocol, clip)
        results.append({"video": path.name, "protocol": protocol.name, **asdict(times)})
        print(line_of(path, times), flush=True)
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n")


def time_file(path: Path, options: argparse.Namespace, protocol: Protocol, clip: ClipConfig) -> ViewTimes:
    """One file; a file that cannot be read is a mistake of the user here."""
    try:
        return time_views(path, options.decoder, protocol, clip, options.rounds)
    except UnreadableVideo as error:
        raise UserError(str(error)) from None


def line_of(path: Path, times: ViewTimes) -> str:
    """The figures of one file, by the median round."""
    together, apart, from_start = (
        times.clips_per_s(seconds) for seconds in (times.together, times.apart, times.from_start)
    )
    return printable(
        f"{path.name}: {times.num_frames} frames, {times.num_views} views: {together:.1f}, {apart:.1f}, "
        f"{from_start:.1f}: {together / apart:.2f} and {together / from_start:.2f} times as many"
    )
