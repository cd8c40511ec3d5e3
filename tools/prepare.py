"""Know a data set before training on it: scan every file, write the manifest and a report; make fast copies.

python tools/prepare.py --dataset kinetics400 --root /data/kinetics400
python tools/prepare.py --dataset kinetics400 --root /data/kinetics400 --transcode /fast/kinetics400
python tools/prepare.py --dataset kinetics400 --root /data/kinetics400 --shard 2/8      one of eight jobs; then --merge

The same command again goes on where the last one was stopped, and scans only files that are new or have changed.
"""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from command_line import PlainParser

from vidtl.data.description import DatasetDescription, load_description, read_records
from vidtl.data.manifest import Manifest, default_file
from vidtl.data.manifest_entry import DEPTHS
from vidtl.data.preparation.report import build_report
from vidtl.data.preparation.report_text import report_lines
from vidtl.data.preparation.scanning import ScanFolder, ScanPlan, Shard, merge_parts, missing_parts, scan_set
from vidtl.data.records import Records
from vidtl.errors import UserError
from vidtl.runtime.launch import run_tool
from vidtl.runtime.logging import configure_logging
from vidtl.runtime.progress import make_progress

DEPTH_HELP = (
    "packets: every file opens and every packet has its time (some ms a file), files whose packets do not tell their "
    "frames are decoded; frames: every frame of every file is decoded. Training is exact with either: a frame that "
    "does not decode at its time is an error then"
)


def parse() -> argparse.Namespace:
    parser = PlainParser(
        prog="prepare.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--dataset", required=True, help="name of a folder under datasets/, or a folder's path")
    parser.add_argument("--root", type=Path, required=True, help="folder of annotations and videos: data.root of a run")
    parser.add_argument("--splits", help="such as train,val (default: all whose annotation files are there)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    parser.add_argument("--depth", choices=DEPTHS, default="packets", help=f"{DEPTH_HELP} (default: %(default)s)")
    parser.add_argument(
        "--time_limit",
        type=float,
        default=60.0,
        help="seconds for one file, and one more per megabyte, before it counts as broken (default: %(default)g)",
    )
    parser.add_argument("--output", type=Path, help="folder of the manifest and the report (default: ROOT/.vidtl)")
    parser.add_argument("--shard", help="do part i of n, such as 2/8, and write no manifest yet")
    parser.add_argument("--merge", action="store_true", help="join the parts of all shards, and scan nothing")
    return parser.parse_args()


def main() -> None:
    options = parse()
    check(options)
    configure_logging(is_main_process=True)
    description = load_description(options.dataset)
    splits = read_splits(description, options.root, options.splits)
    plan = ScanPlan(
        root=options.root,
        paths=sorted({path for records in splits.values() for path in records.paths}),
        folder=ScanFolder.of(options.root, options.output),
        depth=options.depth,
        shard=Shard.parse(options.shard) if options.shard else None,
        frame_rate=next(iter(splits.values())).frame_rate,
        num_workers=options.workers,
        time_limit_s=options.time_limit,
    )
    if plan.shard is None and not options.merge:
        tell_missing_parts(plan.folder)
    manifest = merge_parts(plan) if options.merge else scan_set(plan, make_progress(is_main_process=True))
    if plan.shard:
        print(f"{plan.shard.name}  {len(manifest)} files, {manifest.file}; --merge joins the parts once all are there")
        return
    write_report(build_report(description, splits, options.root, manifest), plan.folder.path)
    tell_manifest(manifest, options.root)


def check(options: argparse.Namespace) -> None:
    """UserError for numbers and combinations that make no sense."""
    if options.workers < 1:
        raise UserError(f"--workers is {options.workers}; allowed: 1 or more")
    if not options.time_limit > 0:
        raise UserError(f"--time_limit is {options.time_limit:g}; allowed: more than 0 seconds")
    if options.merge and options.shard:
        raise UserError("--merge and --shard are given; allowed: one of them, --merge after all shards are done")


def read_splits(description: DatasetDescription, root: Path, chosen: str | None) -> dict[str, Records]:
    """Records of the chosen splits, or of all whose annotation files exist."""
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",") if name.strip()]
        if not names:
            raise UserError(f"--splits is {chosen!r}; allowed: names such as {','.join(description.splits)}")
        return {name: read_records(description, name, root) for name in names}
    names = [name for name in description.splits if has_annotations(description, name, root)]
    absent = [name for name in description.splits if name not in names]
    splits = {name: read_records(description, name, root) for name in names or absent}
    for name in absent:
        print(f"split {name}: its annotation files are not there; left out")
    return splits


def has_annotations(description: DatasetDescription, split: str, root: Path) -> bool:
    """Whether every annotation file of a split exists, also with underscores for spaces."""
    paths = description.splits[split].annotations
    return all((root / path).exists() or (root / path.replace(" ", "_")).exists() for path in paths)


def tell_missing_parts(folder: ScanFolder) -> None:
    parts = folder.parts()
    missing = missing_parts(parts)
    if missing:
        count = max(shard.count for shard in parts)
        numbers = ", ".join(map(str, missing))
        print(f"parts of {count} that are missing: {numbers}; their files are scanned now")


def write_report(report: Mapping[str, Any], folder: Path) -> None:
    """`report.json` and `report.txt`, and the text on standard output."""
    text = "\n".join(report_lines(report)) + "\n"
    try:
        (folder / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / "report.txt").write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"the report could not be written into {folder}: {error.strerror or error}") from error
    print(f"{text}\nreport      {folder / 'report.json'}, report.txt")


def tell_manifest(manifest: Manifest, root: Path) -> None:
    """Where the manifest lies, and how a run finds it."""
    found = manifest.file == default_file(root)
    hint = "found by training and evaluation" if found else f"for a run: --data.manifest {manifest.file}"
    print(f"manifest    {manifest.file} ({hint})")


if __name__ == "__main__":
    run_tool(main)
