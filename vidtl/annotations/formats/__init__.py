"""Annotation formats: a table of readers, one module per family."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from vidtl.annotations.formats import charades, folders, lists, tables
from vidtl.annotations.formats.builder import RecordsBuilder
from vidtl.annotations.formats.source import AnnotationSource, Columns


@dataclass(frozen=True, kw_only=True)
class AnnotationFormat:
    """A reader, and the keys of `dataset.yaml` that it allows."""

    read: Callable[[AnnotationSource], RecordsBuilder]
    columns: Columns = field(default_factory=dict)
    """Columns of the format and their default names; None: optional."""
    pattern_fields: tuple[str, ...] | None = ()
    """Fields that the patterns of `files` may use; none: it has the paths. None: either the paths, or any columns."""
    needs: tuple[str, ...] = ()
    """Keys that must be there."""
    fields: tuple[str, ...] = ()
    """Default fields of a line without a header."""
    annotation_files: bool = True
    """False: the folders of `videos` are the annotation."""
    multi_label: bool | None = None
    """Required value of `labels`; None: either."""
    submission: Literal["csv", "charades", "ssv2"] = "csv"
    """Official form of predictions; `csv` is that of `vidtl.evaluation.submission`."""


FILE_NAME_FIELDS = ("label", "group", "other")

_TABLE = AnnotationFormat(
    read=tables.read_labelled_table,
    columns={"path": "path", "label": "label", "id": None, "start": None, "end": None, "split": None},
    pattern_fields=None,
)

READERS = {
    "kinetics_csv": AnnotationFormat(
        read=tables.read_kinetics_csv,
        columns={"label": "label", "id": "youtube_id", "start": "time_start", "end": "time_end", "split": None},
        pattern_fields=("label", "id", "start", "end"),
    ),
    "charades_csv": AnnotationFormat(
        read=charades.read_charades_csv,
        columns={"id": "id", "actions": "actions", "length": "length", "split": None},
        pattern_fields=("id",),
        needs=("classes",),
        multi_label=True,
        submission="charades",
    ),
    "frame_list": AnnotationFormat(
        read=charades.read_frame_list, needs=("classes", "frame_rate"), multi_label=True, submission="charades"
    ),
    "avid_json": AnnotationFormat(
        read=tables.read_labelled_table,
        columns={"id": "key", "label": "value"},
        pattern_fields=("id",),
        multi_label=False,
    ),
    "ssv2_json": AnnotationFormat(
        read=partial(tables.read_labelled_table, dropped="[]"),
        columns={"id": "id", "label": "template"},
        pattern_fields=("id",),
        multi_label=False,
        submission="ssv2",
    ),
    "hmdb51_splits": AnnotationFormat(read=lists.read_hmdb51_splits, pattern_fields=("label", "id"), multi_label=False),
    "path_list": AnnotationFormat(read=lists.read_path_list, fields=("path", "label")),
    "class_folders": AnnotationFormat(read=folders.read_class_folders, annotation_files=False, multi_label=False),
    "cifar10": AnnotationFormat(read=folders.read_cifar10, annotation_files=False, multi_label=False),
    "labelled_table": _TABLE,
    "labelled_csv": _TABLE,
    "file_names": AnnotationFormat(
        read=folders.read_file_names, pattern_fields=FILE_NAME_FIELDS, annotation_files=False, multi_label=False
    ),
    "gmdcsa24": AnnotationFormat(
        read=tables.read_gmdcsa24, columns={"file": "File Name", "classes": "Classes"}, multi_label=True
    ),
}
