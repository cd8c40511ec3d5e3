"""Annotation formats, one module each: readers of the annotation files of one split."""

from collections.abc import Callable
from dataclasses import dataclass

from vidtl.annotations.formats import (
    charades,
    folders,
    frame_list,
    gmdcsa24,
    hmdb51,
    json_lists,
    kinetics,
    labelled,
    path_list,
)
from vidtl.annotations.formats.source import AnnotationSource, Columns, RecordsBuilder


@dataclass(frozen=True, kw_only=True)
class AnnotationFormat:
    """A reader, and the keys of `dataset.yaml` that it allows."""

    read: Callable[[AnnotationSource], RecordsBuilder]
    columns: Columns
    """Columns of the format and their default names; None: optional."""
    pattern_fields: frozenset[str] = frozenset()
    """Fields that the patterns of `files` may use; none: the annotation has the paths."""
    numbered_classes: bool = False
    """Labels are numbers `cNNN`, which need a list of classes with lines `cNNN name`."""
    fields: tuple[str, ...] = ()
    """Default fields of a line without a header."""
    annotation_files: bool = True
    """False: the folders of `videos` are the annotation."""
    frames_only: bool = False
    """Videos are folders of frames, which need `frame_rate`, and labels are numbers of classes."""
    multi_label: bool | None = None
    """Required value of `labels`; None: either."""
    official_scorer: bool = False
    """An evaluation also writes a file for Charades' official scorer."""


READERS = {
    "kinetics_csv": AnnotationFormat(
        read=kinetics.read_kinetics_csv, columns=kinetics.COLUMNS, pattern_fields=kinetics.PATTERN_FIELDS
    ),
    "charades_csv": AnnotationFormat(
        read=charades.read_charades_csv,
        columns=charades.COLUMNS,
        pattern_fields=charades.PATTERN_FIELDS,
        numbered_classes=True,
        multi_label=True,
        official_scorer=True,
    ),
    "frame_list": AnnotationFormat(
        read=frame_list.read_frame_list,
        columns=frame_list.COLUMNS,
        frames_only=True,
        multi_label=True,
        official_scorer=True,
    ),
    "avid_json": AnnotationFormat(
        read=json_lists.read_avid_json,
        columns=json_lists.AVID_COLUMNS,
        pattern_fields=json_lists.PATTERN_FIELDS,
        multi_label=False,
    ),
    "ssv2_json": AnnotationFormat(
        read=json_lists.read_ssv2_json,
        columns=json_lists.SSV2_COLUMNS,
        pattern_fields=json_lists.PATTERN_FIELDS,
        multi_label=False,
    ),
    "hmdb51_splits": AnnotationFormat(
        read=hmdb51.read_hmdb51_splits,
        columns=hmdb51.COLUMNS,
        pattern_fields=hmdb51.PATTERN_FIELDS,
        multi_label=False,
    ),
    "path_list": AnnotationFormat(read=path_list.read_path_list, columns=path_list.COLUMNS, fields=("path", "label")),
    "class_folders": AnnotationFormat(
        read=folders.read_class_folders, columns=folders.COLUMNS, annotation_files=False, multi_label=False
    ),
    "cifar10": AnnotationFormat(
        read=folders.read_cifar10, columns=folders.COLUMNS, annotation_files=False, multi_label=False
    ),
    "labelled_csv": AnnotationFormat(read=labelled.read_labelled_csv, columns=labelled.COLUMNS),
    "gmdcsa24": AnnotationFormat(read=gmdcsa24.read_gmdcsa24, columns=gmdcsa24.COLUMNS, multi_label=True),
}
