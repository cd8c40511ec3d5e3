"""Scan every file of a data set before training on it, and write the manifest and a report; make fast copies.

python tools/prepare.py --dataset kinetics400 --root /data/kinetics400
python tools/prepare.py --dataset kinetics400 --root /data/kinetics400 --transcode /fast/kinetics400
python tools/prepare.py --dataset kinetics400 --root /data/kinetics400 --shard 2/8      one of eight jobs; then --merge

The same command continues an interrupted run, and scans only files that are new or have changed.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from command_line import PlainParser, positive

from vidtl.annotations.description import DatasetDescription, load_description, read_splits
from vidtl.annotations.layout import AnnotationPlaces
from vidtl.annotations.records import Records
from vidtl.config.checks import require
from vidtl.data.manifest import DEPTHS, Manifest, default_file
from vidtl.errors import UserError
from vidtl.prepare.manifest import ManifestFolder
from vidtl.prepare.report import build_report, report_lines
from vidtl.prepare.scan import ScanPlan, scan_set
from vidtl.prepare.transcode import SPEED_NUM_FRAMES, SPEED_STRIDE, CopySettings, Pair, measure_speed
from vidtl.prepare.transcode_set import CopyPlan, check_copied_set, copy_annotations, make_copies, plan_copies
from vidtl.prepare.work import usable_cores
from vidtl.runtime.files import inside, printable, say, whole_file
from vidtl.runtime.logging import configure_logging
from vidtl.runtime.progress import Progress
from vidtl.runtime.shard import Shard
from vidtl.runtime.signals import run_tool

COPY = CopySettings()

MOST_FAILURES, SPEED_SAMPLE = 20, 12  # failed copies that are printed; videos whose decoding is timed
LONGEST_LIMIT_S = 86_400

DEPTH_HELP = (
    "packets: every file opens and every packet has its time (some ms a file), files whose packets do not prove their "
    "frames are decoded; frames: every frame is decoded. Training is exact with either (default: %(default)s)"
)


def parse() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = PlainParser(prog="prepare.py", description=__doc__, formatter_class=formatter)
    add = parser.add_argument
    add("--dataset", default="", help="data.dataset of a run (default: dataset.yaml or class folders of the root)")
    add("--root", type=Path, required=True, help="folder of annotations and videos: data.root of a run")
    add("--splits", help="such as train,val (default: all whose annotation files exist and have labels)")
    add("--workers", type=positive, default=usable_cores(), help="processes (default: the usable cores, %(default)s)")
    add("--depth", choices=DEPTHS, default="packets", help=DEPTH_HELP)
    limit = "seconds of CPU time without a new frame, and one more per megabyte, before a file is broken (%(default)g)"
    add("--time_limit", type=float, default=60.0, help=limit)
    add("--follow_links", choices=("true", "false"), default="true", help="data.follow_links of a run")
    add("--output", type=Path, help="folder of the manifest and the report (default: ROOT/.vidtl)")
    copies = "make fast-to-decode copies in DIR, a new data.root: a new or empty folder, or one of such copies"
    add("--transcode", type=Path, metavar="DIR", help=copies)
    add("--short_side", type=int, default=COPY.short_side, help="of copies (default: %(default)s)")
    add("--crf", type=int, default=COPY.crf, help="x264's quality of copies (default: %(default)s)")
    add("--shard", help="do part i of n, such as 2/8, and write no manifest yet")
    add("--merge", action="store_true", help="join the parts of all shards, and scan nothing")
    return parser.parse_args()


def main() -> None:
    options = parse()
    check(options)
    configure_logging(is_main_process=True)
    description = load_description(options.dataset, options.root)
    splits = read_chosen(description, options.root, options.splits, options.follow_links == "true")
    plan = ScanPlan(
        root=options.root,
        paths=sorted({path for records in splits.values() for path in records.paths}),
        folder=ManifestFolder(options.output or inside(default_file(options.root).parent, options.root)),
        depth=options.depth,
        shard=Shard.parse(options.shard) if options.shard else None,
        frame_rate=next(iter(splits.values())).frame_rate,
        follow_links=options.follow_links == "true",
        num_workers=options.workers,
        time_limit_s=options.time_limit,
    )
    settings = CopySettings(options.short_side, options.crf)
    copying = plan_copies(plan, description, [*splits], options.transcode, settings) if options.transcode else None
    if options.merge:  # nothing is joined and deleted if parts of the scan or of the copies are missing
        for work in (plan, copying) if copying else (plan,):
            work.folder.check_parts(work.paths)
            report_missing_parts(work.folder, f"their files are as {work.folder.manifest} has them")
    elif not plan.shard:
        report_missing_parts(plan.folder, "their files are scanned now")
    progress = Progress()
    manifest = plan.folder.merge(plan.paths) if options.merge else scan_set(plan, progress)
    if plan.shard:
        say(f"{plan.shard.name}  {len(manifest)} files, {manifest.file}; --merge joins the parts of all shards")
    else:
        write_report(build_report(description, splits, options.root, manifest), plan.folder.path)
        found = manifest.file == default_file(options.root)
        hint = "found by training and evaluation" if found else f"for a run: --data.manifest {manifest.file}"
        say(f"manifest    {manifest.file} ({hint})")
    if copying:
        copies = copying.folder.merge(copying.paths) if options.merge else make_copies(copying, manifest, progress)
        if not plan.shard:
            finish_copies(copying, description, splits, manifest, copies)


def check(options: argparse.Namespace) -> None:
    """Raise UserError for invalid numbers and combinations."""
    allowed = f"more than 0, at most {LONGEST_LIMIT_S} seconds"
    require(0 < options.time_limit <= LONGEST_LIMIT_S, "--time_limit", options.time_limit, allowed)
    if not options.transcode and (options.short_side, options.crf) != (COPY.short_side, COPY.crf):
        raise UserError("--short_side or --crf is given without --transcode; allowed: with it")
    if options.merge and options.shard:
        raise UserError("--merge and --shard are given; allowed: one of them, --merge after all shards are done")


def read_chosen(
    description: DatasetDescription, root: Path, chosen: str | None, follow_links: bool
) -> dict[str, Records]:
    """Read the chosen splits, or all whose annotation files exist and have labels."""
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",") if name.strip()]
        require(bool(names), "--splits", chosen, f"names such as {','.join(description.splits)}")
        return read_splits(description, names, root, follow_links)
    existing = [name for name in description.splits if has_annotation(description, name, root)]
    splits = read_splits(description, existing, root, follow_links, leave_out_unlabeled=True) if existing else {}
    splits = splits or read_splits(description, [*description.splits], root, follow_links)  # raises the reason
    for name in description.splits.keys() - splits.keys():
        reason = "its annotation has no labels" if name in existing else "its annotation files do not exist"
        say(f"split {name}: {reason}; left out (--splits names the splits to read, such as train,val)")
    return splits


def has_annotation(description: DatasetDescription, split: str, root: Path) -> bool:
    """Check that the annotation files of a split exist, or without any, one of its folders."""
    patterns, folders = description.splits[split].annotations, description.splits[split].videos
    try:
        found = all(map(AnnotationPlaces(root, description.folder).find, patterns))
    except (UserError, OSError):
        return False
    return found if patterns else any((root / folder).is_dir() for folder in folders)


def report_missing_parts(folder: ManifestFolder, outcome: str) -> None:
    """Print the numbers of missing parts."""
    missing, count = folder.missing_parts()
    if missing:
        say(f"parts of {count} that are missing: {', '.join(map(str, missing))}; {outcome}")


def write_report(report: Mapping[str, Any], folder: Path) -> None:
    """Write `report.json` and `report.txt`, and print the text."""
    text = "".join(f"{printable(line)}\n" for line in report_lines(report))
    content = {"report.json": json.dumps(report, indent=1, ensure_ascii=False) + "\n", "report.txt": text}
    for name in content:
        with whole_file(folder / name) as file:
            file.write(content[name])
    say(*text.splitlines(), f"report      {folder / 'report.json'}, report.txt")


def finish_copies(
    plan: CopyPlan, dataset: DatasetDescription, splits: Mapping[str, Records], originals: Manifest, copies: Manifest
) -> None:
    """Make a data root of the copies, and print the result."""
    copy_annotations(dataset, list(splits), plan.scan.root, plan.output)
    check_copied_set(plan, dataset, splits, copies)
    before, after = ({entry.path: entry for entry in manifest} for manifest in (originals, copies))
    both = [(before[path], after[target]) for path, target in plan.targets.items()]
    pairs: list[Pair] = [((plan.scan.root, old), (plan.output, copy)) for old, copy in both if copy.is_readable]
    failed = [copy for original, copy in both if original.is_readable and not copy.is_readable]
    num_copies = f"{len(pairs):,} of {len(plan.targets):,} files"
    say("", f"copies      {plan.output}: {num_copies}, short side at most {plan.settings.short_side}")
    for copy in failed[:MOST_FAILURES]:
        say(f"            {copy.path}: {copy.reason}")
    if len(failed) > MOST_FAILURES:
        say(f"            and {len(failed) - MOST_FAILURES:,} more")
    if pairs:
        report_gain(pairs)
    say(f"for a run   --data.root {plan.output}")


def report_gain(pairs: list[Pair]) -> None:
    """Print sizes, and the speed of decoding a sample of the videos."""
    before, after = (sum(side[1].size for side in sides) for sides in zip(*pairs, strict=True))
    say(f"size        {before / 1e6:,.1f} MB became {after / 1e6:,.1f} MB ({after / before:.2f} times)")
    sample = pairs[:: -(-len(pairs) // SPEED_SAMPLE)]
    originals, copies = measure_speed(sample)
    clip = f"{SPEED_NUM_FRAMES} frames, stride {SPEED_STRIDE}, {len(sample)} videos"
    gain = f"({copies / originals:.1f} times; {clip})"
    say(f"speed       {originals:.1f} clips per CPU second became {copies:.1f} {gain}")


if __name__ == "__main__":
    run_tool(main)
