"""`benchmark.py decode [VIDEO...]`: reading clips, beside decord, torchcodec and pytorchvideo in the same run."""

import argparse
import json
import shlex
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from vidtl.benchmark.decoding import CONTENDERS, DECORD, LIMIT, PLANAR, RGB, TORCHCODEC, FileTimes, installed, time_file
from vidtl.benchmark.machine import describe_machine
from vidtl.benchmark.made_videos import make_videos
from vidtl.benchmark.transport import FLOAT, time_transport
from vidtl.benchmark.transport import PLANAR as PLANAR_BATCH
from vidtl.errors import UserError
from vidtl.prepare.scan import ScanJob, scan_file
from vidtl.prepare.transcode import CopyJob, CopySettings, copy_video
from vidtl.runtime.escape import printable
from vidtl.runtime.versions import installed_versions

PACKAGES = ("av", "decord", "torchcodec", "pytorchvideo", "opencv-python-headless", "torch", "vidtl")


class Goal(NamedTuple):
    """What we aim at."""

    title: str
    value: float | None
    limit: float


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("videos", nargs="*", type=Path, help="files to read beside the generated ones")
    parser.add_argument("--clips", type=int, default=4, help="random clips of each file per round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the median counts")
    parser.add_argument("--made_in", type=Path, help="folder to keep the generated files in")
    parser.add_argument("--output", type=Path, help="JSON file to write, with every round's seconds")


def main(options: argparse.Namespace) -> None:
    """Generate the files, copy them as tools/prepare.py --transcode does, time both, and time transport."""
    for name in ("clips", "rounds"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}; allowed: 1 or more")
    for path in options.videos:
        if not path.is_file():
            raise UserError(f"{path} is no file; allowed: videos")
    torch.set_num_threads(1)
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    contenders = installed()
    for contender in CONTENDERS:
        if contender not in contenders:
            console.print(f"left out: {contender.name} ({contender.package} is not installed)", style="yellow")
    with ExitStack() as stack:
        folder = options.made_in or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        made = make_videos(folder)
        paths = [*made, *options.videos]
        originals = [time_file(path, contenders, options.clips, options.rounds) for path in paths]
        print_table(console, "originals", originals)
        ours = [contender for contender in contenders if contender.name in (PLANAR, RGB, LIMIT)]
        copies = [
            time_file(copy, ours, options.clips, options.rounds)
            for copy in (copied(path, folder / "copies") for path in paths)
        ]
    print_table(console, "copies as tools/prepare.py --transcode makes them", copies)
    transport = time_transport(num_batches=16, batch_size=8, num_rounds=options.rounds)
    transport_ratio = median(transport[FLOAT]) / median(transport[PLANAR_BATCH])
    goals = goals_of(originals, copies, transport_ratio)
    for goal in goals:
        value = "not measured" if goal.value is None else f"{goal.value:.2f}"
        verdict = "" if goal.value is None else "reached: " if goal.value >= goal.limit else "MISSED: "
        console.print(f"{verdict}{goal.title} {value} (>= {goal.limit:g})")
    if options.output:
        options.output.write_text(json.dumps(as_json(originals, copies, transport, goals), indent=1) + "\n")


def copied(path: Path, folder: Path) -> Path:
    """A fast copy of one file."""
    entry = scan_file(ScanJob(path.parent, path.name, "packets"))
    job = CopyJob(path.parent, entry, folder, f"{path.stem}.mp4", CopySettings())
    copy = copy_video(job)
    if copy.status != "ok":
        raise UserError(f"{path}: {copy.reason}")
    return folder / job.target


def print_table(console: Console, title: str, files: list[FileTimes]) -> None:
    """A line per file: each contender's speed as a multiple of decoding alone."""
    names = list(dict.fromkeys(name for file in files for name in (*file.seconds, *file.refused)))
    table = Table(title=f"\n{title}: clips per CPU second, as multiples of decoding alone", title_justify="left")
    table.add_column("file")
    for name in names:
        if name != LIMIT:
            table.add_column(name, justify="right")
    for file in files:
        cells = []
        for name in names:
            ratio = file.ratio(name, LIMIT)
            if name != LIMIT:
                cells.append("refused" if ratio is None else f"{ratio:.2f}")
        table.add_row(printable(file.name), *cells)
    console.print(table)


def goals_of(originals: list[FileTimes], copies: list[FileTimes], transport_ratio: float) -> list[Goal]:
    """Ratios as geometric means over the files that both sides read."""
    best_torchcodec = [
        min(ratios)
        for file in originals
        if (ratios := [r for name in TORCHCODEC if (r := file.ratio(PLANAR, name)) is not None])
    ]
    prepared = [
        original.median(DECORD) / copy.median(PLANAR)  # type: ignore[operator]
        for original, copy in zip(originals, copies, strict=True)
        if original.median(DECORD) is not None and copy.median(PLANAR) is not None
    ]
    return [
        Goal("planar, times decord", mean([file.ratio(PLANAR, DECORD) for file in originals]), 1.7),
        Goal("RGB, times decord", mean([file.ratio(RGB, DECORD) for file in originals]), 1.5),
        Goal("planar, times torchcodec's better mode", mean(best_torchcodec), 1.4),
        Goal("planar on copies, times decord on originals", mean(prepared), 6.0),
        Goal("transport of uint8 planar batches, times float32", transport_ratio, 4.0),
    ]


def mean(ratios: list[float | None]) -> float | None:
    """Geometric; None of nothing."""
    known = [ratio for ratio in ratios if ratio is not None]
    return geometric_mean(known) if known else None


def as_json(
    originals: list[FileTimes], copies: list[FileTimes], transport: dict[str, list[float]], goals: list[Goal]
) -> dict[str, Any]:
    """Everything measured, and on what."""
    return {
        "command": shlex.join(["python", "tools/benchmark.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": installed_versions(PACKAGES),
        "goals": [goal._asdict() for goal in goals],
        "originals": [file._asdict() for file in originals],
        "copies": [file._asdict() for file in copies],
        "transport_cpu_seconds_per_clip": transport,
    }
