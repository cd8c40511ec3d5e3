"""Annotation formats, a module each: a reader turns the annotation files of one split into records."""

from collections.abc import Callable
from dataclasses import dataclass

from vidtl.data.formats import charades, gmdcsa24, kinetics, labelled
from vidtl.data.formats.source import AnnotationSource, Columns, RecordsBuilder


@dataclass(frozen=True)
class AnnotationFormat:
    """A reader and what `dataset.yaml` may say about its files."""

    read: Callable[[AnnotationSource], RecordsBuilder]
    columns: Columns
    """Columns the reader knows, and their names where `dataset.yaml` gives no other; None: optional."""
    pattern_fields: frozenset[str] = frozenset()
    """Fields that the patterns of `files` may use; none: paths come from the annotation itself."""
    numbered_classes: bool = False
    """Labels are numbers `cNNN`, so there must be a list of classes, with lines `cNNN name`."""


READERS = {
    "kinetics_csv": AnnotationFormat(kinetics.read_kinetics_csv, kinetics.COLUMNS, kinetics.PATTERN_FIELDS),
    "charades_csv": AnnotationFormat(charades.read_charades_csv, charades.COLUMNS, charades.PATTERN_FIELDS, True),
    "labelled_csv": AnnotationFormat(labelled.read_labelled_csv, labelled.COLUMNS),
    "gmdcsa24": AnnotationFormat(gmdcsa24.read_gmdcsa24, gmdcsa24.COLUMNS),
}
