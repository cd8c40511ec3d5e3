"""`benchmark.py conformance FOLDER`: each backend's frames of each file against a plain decode from start to end.

Ends with code 1 where a backend gives wrong frames.
"""

import argparse
import csv
import sys
from collections import Counter
from pathlib import Path

import av
from rich.progress import track

from vidtl.benchmark.conformance import Verdict, available_decoders, check_file
from vidtl.errors import UserError
from vidtl.runtime.escape import printable
from vidtl.runtime.versions import installed_versions

EXIT_WRONG = 1


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("folder", type=Path, help="folder of videos")
    parser.add_argument("--output", type=Path, help="CSV file to write, a line for each file")


def main(options: argparse.Namespace) -> None:
    """Check every file, say which ones a backend refuses or gets wrong and why, and count the verdicts."""
    paths = sorted(path for path in options.folder.iterdir() if path.is_file()) if options.folder.is_dir() else []
    if not paths:
        raise UserError(f"{options.folder} is no folder with files; allowed: a folder of videos")
    decoders = available_decoders(paths[0])
    for decoder, problem in decoders.items():
        if problem:
            print(f"left out: {decoder}: {problem}")
    results = {path.name: check_file(path, decoders) for path in track(paths, "decoding", transient=True)}
    names = [decoder for decoder, problem in decoders.items() if not problem]
    if options.output:
        write_table(results, names, options.output)
    for file, found in results.items():
        for decoder, verdict in found.items():
            if verdict.outcome not in ("exact", "rounding"):
                print(printable(f"{file}: {decoder}: {as_text(verdict)}"))
    counts = {decoder: Counter(found[decoder].outcome for found in results.values()) for decoder in names}
    for decoder, outcomes in counts.items():
        print(f"{decoder}: " + ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common()))
    print(f"versions: {', '.join(f'{name} {v}' for name, v in installed_versions(('av', *names)).items())}")
    print(
        "FFmpeg's libraries in av: " + ", ".join(f"{n} {'.'.join(map(str, v))}" for n, v in av.library_versions.items())
    )
    if any(outcomes["WRONG"] for outcomes in counts.values()):
        sys.exit(EXIT_WRONG)


def write_table(results: dict[str, dict[str, Verdict]], decoders: list[str], file: Path) -> None:
    """A line for each file: the verdict of each backend."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["file", *decoders])
        for name, found in results.items():
            writer.writerow([name, *(as_text(found[decoder]) for decoder in decoders)])


def as_text(verdict: Verdict) -> str:
    """One cell of the table."""
    if verdict.reason:
        return f"{verdict.outcome}: {verdict.reason}"
    return verdict.outcome if not verdict.difference else f"{verdict.outcome} ({verdict.difference:.2f})"
