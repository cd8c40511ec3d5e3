"""Known gaps, which training leaves out: annotated videos that the manifest has as missing or broken; lost classes."""

import logging
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vidtl.annotations.records import Records
from vidtl.config import DataConfig
from vidtl.data.manifest import file_stamp, find_manifest
from vidtl.errors import UserError

_log = logging.getLogger(__name__)


class Gap(NamedTuple):
    """A video that is left out."""

    id: str
    path: str
    reason: str


def find_gaps(records: Records, setting: str) -> list[Gap]:
    """Find the records whose files are unreadable in the manifest of `data.manifest`, and gone or unchanged now."""
    manifest, reasons = find_manifest(records.root, setting), {}
    for entry in manifest.unreadable() if manifest else ():
        file = records.root / entry.path
        # A folder's stamp does not cover its images.
        if file_stamp(file) in (None, (entry.size, entry.mtime_ns)) and not file.is_dir():
            reasons[entry.path] = entry.reason
    videos = zip(records.ids, records.paths, strict=True) if reasons else ()
    return [Gap(video_id, path, reasons[path]) for video_id, path in videos if path in reasons]


def without_gaps(records: Records, gaps: Sequence[Gap]) -> Records:
    """Return the other records in their order; UserError if there are none."""
    if not gaps:
        return records
    ids = {gap.id for gap in gaps}
    kept = [index for index, video_id in enumerate(records.ids) if video_id not in ids]
    if not kept:
        fault = f"none of {len(records)} videos can be read according to the manifest, as {gaps[0].path}"
        raise UserError(f"data.root {str(records.root)!r}: {fault}: {gaps[0].reason}; see tools/prepare.py")
    return records.select(kept)


def reason_kind(reason: str) -> str:
    """Return a reason without its numbers, so that like reasons are counted together."""
    return re.sub(r"\d+", "N", reason)


def check_classes(data: DataConfig, records: Records, *annotated: Records) -> None:
    """Raise a UserError for classes of `annotated` without a video in `records` whose file exists, or for a single one.

    With `data.allow_empty_classes`, warn of the former. The first file of a class that exists ends the search.
    """
    if len(records.classes) == 1 and not records.multi_label:
        raise UserError(f"{records.annotation}: {records.classes.names[0]!r} is the only class; allowed: two or more")
    videos, classes = records.distinct_labels()
    kept: set[int] = set()
    for index, number in zip(videos.tolist(), classes.tolist(), strict=True):
        if number not in kept and file_stamp(records.path(index)) is not None:
            kept.add(number)
    wanted = np.unique(np.concatenate([each.label_classes for each in annotated]))
    if lost := [records.classes.names[number] for number in wanted if number not in kept]:
        what = f"{len(lost)} classes without a readable video to train on: {', '.join(map(repr, lost[:5]))}"
        if not data.allow_empty_classes:
            raise UserError(f"{records.annotation}: {what}; allowed with data.allow_empty_classes: true")
        _log.warning("%s: %s", records.annotation, what)
