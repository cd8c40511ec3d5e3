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

from vidtl.data.description import find_unlabelled, load_description, read_records
from vidtl.data.description_file import DatasetDescription
from vidtl.data.layout import find_annotations
from vidtl.data.manifest import Manifest, default_file
from vidtl.data.manifest_entry import DEPTHS
from vidtl.data.records import Records
from vidtl.errors import UserError
from vidtl.prepare.report import build_report
from vidtl.prepare.report_text import printable, report_lines
from vidtl.prepare.scanning import ScanPlan, scan_set
from vidtl.prepare.shards import ManifestFolder
from vidtl.prepare.speed import NUM_FRAMES, STRIDE, Pair, measure_speed
from vidtl.prepare.transcode import CopySettings
from vidtl.prepare.transcode_set import CopyPlan, check_copied_set, copy_annotations, make_copies, plan_copies
from vidtl.runtime.exit import run_tool
from vidtl.runtime.files import whole_file
from vidtl.runtime.logging import configure_logging
from vidtl.runtime.progress import make_progress
from vidtl.runtime.shard import Shard

COPY = CopySettings()

MOST_FAILURES = 20
"""Failed copies that are printed; the copies' manifest has all."""
SPEED_SAMPLE = 12
"""Videos whose decoding is timed."""
LONGEST_LIMIT_S = 86_400

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
    parser.add_argument(
        "--splits", help="such as train,val (default: all whose annotation files are there and have labels)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    parser.add_argument("--depth", choices=DEPTHS, default="packets", help=f"{DEPTH_HELP} (default: %(default)s)")
    parser.add_argument(
        "--time_limit",
        type=float,
        default=60.0,
        help="seconds for one file, and one more per megabyte, before it counts as broken (default: %(default)g)",
    )
    parser.add_argument("--output", type=Path, help="folder of the manifest and the report (default: ROOT/.vidtl)")
    parser.add_argument(
        "--transcode",
        type=Path,
        metavar="DIR",
        help="make fast-to-decode copies in DIR, a new data.root: a new or empty folder, or one of such copies",
    )
    parser.add_argument("--short_side", type=int, default=COPY.short_side, help="of copies (default: %(default)s)")
    parser.add_argument("--crf", type=int, default=COPY.crf, help="x264's quality of copies (default: %(default)s)")
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
        folder=ManifestFolder.of(options.root, options.output),
        depth=options.depth,
        shard=Shard.parse(options.shard) if options.shard else None,
        frame_rate=next(iter(splits.values())).frame_rate,
        num_workers=options.workers,
        time_limit_s=options.time_limit,
    )
    settings = CopySettings(options.short_side, options.crf)
    copying = plan_copies(plan, description, [*splits], options.transcode, settings) if options.transcode else None
    if options.merge:
        check_parts(plan, copying)
    elif not plan.shard:
        tell_missing_parts(plan.folder, "their files are scanned now")
    progress = make_progress(is_main_process=True)
    manifest = plan.folder.merge(plan.paths) if options.merge else scan_set(plan, progress)
    if plan.shard:
        print(f"{plan.shard.name}  {len(manifest)} files, {manifest.file}; --merge joins the parts once all are there")
    else:
        write_report(build_report(description, splits, options.root, manifest), plan.folder.path)
        tell_manifest(manifest, options.root)
    if copying:
        copies = (
            copying.folder.merge([*copying.targets.values()])
            if options.merge
            else make_copies(copying, manifest, progress)
        )
        if not plan.shard:
            finish_copies(copying, description, splits, manifest, copies)


def finish_copies(
    plan: CopyPlan,
    description: DatasetDescription,
    splits: Mapping[str, Records],
    originals: Manifest,
    copies: Manifest,
) -> None:
    """Make a data root of the copies, and tell what became of the originals."""
    copy_annotations(description, list(splits), plan.scan.root, plan.output)
    check_copied_set(plan, description, splits, copies)
    before, after = ({entry.path: entry for entry in manifest} for manifest in (originals, copies))
    pairs, failed = [], []
    for path, target in plan.targets.items():
        original, copy = before[path], after[target]
        if copy.is_readable:
            pairs.append(Pair((plan.scan.root, original), (plan.output, copy)))
        elif original.is_readable:
            failed.append(copy)
    print(f"\ncopies      {plan.output}: {len(pairs):,} of {len(plan.targets):,} files, short side at most "
          f"{plan.settings.short_side}")  # fmt: skip
    for copy in failed[:MOST_FAILURES]:
        print(f"            {printable(copy.path)}: {copy.reason}")
    if len(failed) > MOST_FAILURES:
        print(f"            and {len(failed) - MOST_FAILURES:,} more")
    if pairs:
        tell_gain(pairs)
    print(f"for a run   --data.root {plan.output}")


def tell_gain(pairs: list[Pair]) -> None:
    """Bytes, and the speed of decoding a sample of the videos."""
    before, after = (sum(side[1].size for side in sides) for sides in zip(*pairs, strict=True))
    print(f"size        {before / 1e6:,.1f} MB became {after / 1e6:,.1f} MB ({after / before:.2f} times)")
    every = -(-len(pairs) // SPEED_SAMPLE)
    speed = measure_speed(pairs[::every])
    print(
        f"speed       {speed.originals:.1f} clips per CPU second became {speed.copies:.1f} ({speed.ratio:.1f} times; "
        f"{NUM_FRAMES} frames, stride {STRIDE}, {speed.num_videos} videos)"
    )


def check(options: argparse.Namespace) -> None:
    """UserError for numbers and combinations that make no sense."""
    if options.workers < 1:
        raise UserError(f"--workers is {options.workers}; allowed: 1 or more")
    if not 0 < options.time_limit <= LONGEST_LIMIT_S:
        raise UserError(
            f"--time_limit is {options.time_limit:g}; allowed: more than 0, at most {LONGEST_LIMIT_S} seconds"
        )
    if not options.transcode and (options.short_side, options.crf) != (COPY.short_side, COPY.crf):
        raise UserError(
            "--short_side or --crf is given without --transcode; allowed: with it, since both are of copies"
        )
    if options.merge and options.shard:
        raise UserError("--merge and --shard are given; allowed: one of them, --merge after all shards are done")


def read_splits(description: DatasetDescription, root: Path, chosen: str | None) -> dict[str, Records]:
    """Records of the chosen splits, or of all whose annotation files exist and have labels."""
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",") if name.strip()]
        if not names:
            raise UserError(f"--splits is {chosen!r}; allowed: names such as {','.join(description.splits)}")
        return {name: read_records(description, name, root) for name in names}
    reasons = {name: why_left_out(description, name, root) for name in description.splits}
    names = [name for name, reason in reasons.items() if not reason]
    splits = {name: read_records(description, name, root) for name in names or reasons}
    for name, reason in reasons.items():
        if reason:
            print(f"split {name}: {reason}; left out")
    return splits


def why_left_out(description: DatasetDescription, split: str, root: Path) -> str:
    """Why a split that nobody named is not read; empty for one that is."""
    if not has_annotations(description, split, root):
        return "its annotation files are not there"
    file = find_unlabelled(description, split, root)
    return f"{file} has no column of labels (--splits names the splits to read, such as train,val)" if file else ""


def has_annotations(description: DatasetDescription, split: str, root: Path) -> bool:
    """Whether all annotation files of a split exist, or one of its folders where those tell everything."""
    patterns = description.splits[split].annotations
    if not patterns:
        return any((root / folder).is_dir() for folder in description.splits[split].videos)
    try:
        return all(find_annotations(root, pattern) for pattern in patterns)
    except (UserError, OSError):
        return False


def check_parts(plan: ScanPlan, copying: CopyPlan | None) -> None:
    """UserError where parts of files or of copies are missing, before those of either are joined and deleted."""
    folders = {plan.folder: plan.paths}
    if copying:
        folders[copying.folder] = [*copying.targets.values()]
    for folder, paths in folders.items():
        folder.joined(paths)
        tell_missing_parts(folder, f"their files are as {folder.manifest} has them")


def tell_missing_parts(folder: ManifestFolder, outcome: str) -> None:
    """Say which jobs have not delivered, and what becomes of their files."""
    missing, count = folder.missing_parts()
    if missing:
        numbers = ", ".join(map(str, missing))
        print(f"parts of {count} that are missing: {numbers}; {outcome}")


def write_report(report: Mapping[str, Any], folder: Path) -> None:
    """`report.json` and `report.txt`, and the text on standard output."""
    text = "\n".join(report_lines(report)) + "\n"
    try:
        with whole_file(folder / "report.json") as file:
            file.write(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        with whole_file(folder / "report.txt") as file:
            file.write(text)
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
