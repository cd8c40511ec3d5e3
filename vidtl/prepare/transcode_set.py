"""Copies of a whole data set that decode fast, in a folder that a run can use as `data.root`."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from vidtl.annotations.description import FILE_NAME, read_records
from vidtl.annotations.keys import DatasetDescription
from vidtl.annotations.layout import AnnotationPlaces
from vidtl.annotations.records import Records
from vidtl.config.documents import read_json
from vidtl.data.manifest import FOLDER, Entry, Manifest, file_stamp
from vidtl.errors import UserError
from vidtl.prepare.manifest import ManifestFolder
from vidtl.prepare.scan import ScanPlan, limit_s, missing_entry
from vidtl.prepare.transcode import CopyJob, CopySettings, copy_video, not_copied
from vidtl.prepare.work import Work, do_work
from vidtl.runtime.files import inside, replacing, whole_file
from vidtl.runtime.progress import Progress

SETTINGS_FILE = "copies.json"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class CopyPlan:
    """The copies of a data set."""

    scan: ScanPlan
    output: Path
    """Root of the copies."""
    targets: Mapping[str, str]
    """Path of the copy by path of the original."""
    settings: CopySettings

    @property
    def paths(self) -> list[str]:
        """Paths of all copies."""
        return [*self.targets.values()]

    @property
    def folder(self) -> ManifestFolder:
        """Folder of the copies' manifest."""
        return ManifestFolder(self.output / FOLDER)


def plan_copies(
    scan: ScanPlan, description: DatasetDescription, splits: Sequence[str], output: Path, settings: CopySettings
) -> CopyPlan:
    """Plan the copies of all files of a scan; writes nothing but the settings.

    A copy keeps its path, but gets the suffix `.mp4` if the data set finds videos by patterns for any suffix.

    UserError: the folder lies in the original's root, or holds other files or copies made with other settings; or the
    annotation cannot contain its path; or classes are folders of splits that are not copied.
    """
    if output.resolve().is_relative_to(scan.root.resolve()):
        raise UserError(f"--transcode is {str(output)!r}; allowed: a folder outside --root {str(scan.root)!r}")
    left_out = ",".join(name for name in description.splits if name not in splits)
    if left_out and not description.classes and any(not split.annotations for split in description.splits.values()):
        fault = f"--splits leaves out {left_out}, but the classes are the folders of all splits"
        raise UserError(f"{fault}; allowed with --transcode: all of them; leave --splits out")
    for file in _annotation_files(description, splits, scan.root):
        if _moved(file, scan.root, output) != file.read_bytes() and not file.is_relative_to(scan.root):
            raise UserError(f"{file} has absolute paths but is not in --root; allowed with --transcode: relative ones")
    targets = {path: path for path in scan.paths}
    if any(pattern.endswith(".*") for pattern in description.files):
        with_mp4 = {path: str(PurePosixPath(path).with_suffix(".mp4")) for path in targets}
        targets = with_mp4 if len({*with_mp4.values()}) == len(targets) else targets
    _record_settings(output, settings)
    return CopyPlan(scan=scan, output=output, targets=targets, settings=settings)


def make_copies(plan: CopyPlan, originals: Manifest, progress: Progress) -> Manifest:
    """Copy the readable files whose copy is missing or older than the original; see `do_work`."""
    paths = {plan.targets[path]: path for path in plan.scan.share}

    def entry_or_job(target: str, known: Entry | None) -> Entry | CopyJob:
        original = originals.find(paths[target]) or missing_entry(paths[target], "packets")
        job = CopyJob(plan.scan.root, original, plan.output, target, plan.settings, plan.scan.follow_links)
        if not original.is_readable:
            return not_copied(job, original.reason)
        if not original.is_video:
            return not_copied(job, "an image or a folder of images, not a video file")
        if known and known.mtime_ns == original.mtime_ns:
            stamp = file_stamp(plan.output / target)
            if stamp == (known.size, known.mtime_ns) or (stamp is None and not known.is_readable):
                return known
        return job

    work = Work(
        title="copying",
        names=list(paths),
        entry_or_job=entry_or_job,
        run=copy_video,
        lost=lambda job, lost: replace(not_copied(job, lost.reason), status=lost.status),  # a new run tries it again
        limit_s=lambda job: limit_s(plan.scan.time_limit_s, job.root / job.entry.path),
    )
    return do_work(work, plan.folder, plan.scan.shard, plan.scan.num_workers, progress)


def copy_annotations(description: DatasetDescription, splits: Sequence[str], root: Path, output: Path) -> None:
    """Copy `dataset.yaml`, annotation files and class list that lie in the root, with absolute paths of the copies."""
    files = [*_annotation_files(description, splits, root), *description.folder.glob(FILE_NAME)]
    for file in (each for each in files if each.is_relative_to(root)):
        content = _moved(file, root, output)
        target = inside(output / file.relative_to(root), output)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            temporary.write_bytes(content)


def check_copied_set(
    plan: CopyPlan, description: DatasetDescription, splits: Mapping[str, Records], copies: Manifest
) -> None:
    """Raise UserError unless the root of the copies gives the same records, and finds every copy."""
    made = {entry.path for entry in copies if entry.is_readable}
    for name, records in splits.items():
        if not description.splits[name].annotations:
            # Folders are the annotation: a file that was not copied has no record.
            records = records.select([index for index, path in enumerate(records.paths) if plan.targets[path] in made])
        copied = read_records(description, name, plan.output)
        if [*copied.ids] != [*records.ids] or copied.classes != records.classes:
            rows = "classes" if [*copied.ids] == [*records.ids] else "rows"
            raise UserError(f"{plan.output}: split {name} has other {rows} than in {plan.scan.root}; use a new folder")
        for before, after in zip(records.paths, copied.paths, strict=True):
            target = plan.targets[before]
            if target in made and after != target:
                raise UserError(f"{plan.output}: {after!r} is found instead of {target!r}; use a new folder")


def _annotation_files(description: DatasetDescription, splits: Sequence[str], root: Path) -> list[Path]:
    """List each file once; those of all splits if the classes are the labels of all splits."""
    names = splits if description.classes else list(description.splits)
    patterns = [pattern for name in names for pattern in description.splits[name].annotations]
    places = AnnotationPlaces(root, description.folder)
    patterns += [description.classes] if description.classes else []
    return list(dict.fromkeys(file for pattern in patterns for file in places.find(pattern)))


def _moved(file: Path, root: Path, output: Path) -> bytes:
    """Return an annotation file with absolute paths moved to `output`; UserError if that has blanks or quotes."""
    content = file.read_bytes()
    any_root = b"|".join(re.escape(os.fsencode(each)) for each in (root.absolute(), root.resolve()))
    absolute = re.compile(rb'((?:^|[\r,"]|\xef\xbb\xbf)[ \t]*)(?:' + any_root + rb")/", re.MULTILINE)
    new_root = os.fsencode(output.absolute())
    first = absolute.search(content)
    if first and re.search(rb'[\s,"]', new_root):
        line = content.count(b"\n", 0, first.end()) + 1
        fault = f"the path is absolute, and --transcode {str(output.absolute())!r} cannot take its root's place"
        raise UserError(f"{file}:{line}: {fault}; allowed: a folder whose path has no spaces, commas or quotes")
    return absolute.sub(lambda match: match[1] + new_root + b"/", content)


def _record_settings(output: Path, settings: CopySettings) -> None:
    """Write the settings of new copies, or compare them with those of the copies that exist."""
    file = inside(output / FOLDER / SETTINGS_FILE, output)
    ours = {"version": VERSION, **asdict(settings)}
    try:
        # Listed before reading the settings, which another shard that starts now writes first.
        in_use = output.is_dir() and any(name != FOLDER for name in os.listdir(output))
        if in_use and not file.is_file():
            raise UserError(f"--transcode {output} is not empty and holds no copies; allowed: a new or empty folder")
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{file} cannot be read or written: {error}") from error
    if not file.is_file():
        with whole_file(file) as stream:
            stream.write(json.dumps(ours) + "\n")
    found = read_json(file)
    if other := next((key for key in ours if found.get(key) != ours[key]), None):
        made = f"{output} holds copies made with {other} {found.get(other)!r}, not {ours[other]!r}"
        raise UserError(f"{made}; allowed: the same settings, or another folder")
