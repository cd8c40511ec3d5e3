"""Columns of strings and labels of annotated videos."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.refusals import refused
from vidtl.annotations.records import ClassNames, Records, StringColumn, columns_sha256

INF = np.inf


@pytest.fixture
def records():
    """Three videos: two labels with times and one of them twice; none; one for the whole video."""
    return Records(
        root=Path("/root"),
        classes=ClassNames(("run", "sit", "walk")),
        multi_label=True,
        annotation=Path("/root/a.csv"),
        ids=StringColumn.from_strings(["a", "b", "c"]),
        paths=StringColumn.from_strings(["v/a.mp4", "v/b.mp4", "v/c.mp4"]),
        lines=np.array([2, 3, 5], np.int32),
        label_offsets=np.array([0, 3, 3, 4]),
        label_classes=np.array([2, 0, 2, 1], np.int32),
        label_starts_s=np.array([0, 3, 6, -INF]),
        label_ends_s=np.array([3, 5, 6, INF]),
        segment_starts_s=np.array([0, 0, 1.5]),
        segment_ends_s=np.array([INF, INF, 4.0]),
    )


def test_string_column():
    strings = ["", "plain", "-_äöü 漢字", "", "x" * 1000]
    column = StringColumn.from_strings(iter(strings))
    assert list(column) == [column[i] for i in range(len(column))] == strings
    assert column[-1] == strings[-1]
    with pytest.raises(IndexError):
        column[5]
    assert column.repeated().tolist() == [0, 3]
    assert list(StringColumn.from_strings([])) == []


def test_class_names():
    classes = ClassNames(("applauding", "archery"))
    assert (len(classes), classes.index("archery"), "archery" in classes) == (2, 1, True)
    with refused("'archrey'", "'archery'"):
        classes.index("archrey")
    for names, part in (((), "empty"), (("a", ""), "class 1"), (("a", "b", "a"), "'a'")):
        with refused(part):
            ClassNames(names)


def test_labels_of_videos_and_clips(records):
    assert [records.labels(index).tolist() for index in range(3)] == [[0, 2], [], [1]]
    assert records.video_targets().tolist() == [records.targets(index).tolist() for index in range(3)]
    assert records.video_targets().tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert records.targets(0).dtype == np.float32
    assert records.labels(0, 0.5, 2).tolist() == [2]
    assert records.labels(0, 2, 4).tolist() == [0, 2]
    assert records.labels(0, 3, 4).tolist() == [0]  # touching at 3 s is no overlap
    assert records.labels(0, 4, 4).tolist() == [0]  # a clip of one frame
    assert records.labels(0, 5.5, 7).tolist() == [2]  # a segment of no length, inside the clip
    assert records.labels(0, 8, 9).tolist() == []
    assert records.labels(2, 8, 9).tolist() == [1]
    assert records.targets(0, 2, 4).tolist() == [1, 0, 1]
    assert records.targets(0, 3, 4).tolist() == [1, 0, 0]


def test_selection_keeps_order_and_labels(records):
    chosen = records.select([2, 0, 0])
    assert list(chosen.ids) == ["c", "a", "a"]
    assert list(chosen.paths) == ["v/c.mp4", "v/a.mp4", "v/a.mp4"]
    assert chosen.lines.tolist() == [5, 2, 2]
    assert [chosen.labels(i).tolist() for i in range(3)] == [[1], [0, 2], [0, 2]]
    assert chosen.labels(1, 0.5, 2).tolist() == [2]
    assert chosen.segment_starts_s.tolist() == [1.5, 0, 0]
    assert (chosen.path(1), chosen.origin(0)) == (Path("/root/v/a.mp4"), "/root/a.csv:5")
    with pytest.raises(IndexError):
        records.labels(3)
    assert len(records.select([])) == 0


def test_records_with_the_same_labels_are_found(records):
    chosen = records.select([0, 1, 2, 0, 1])
    for labels, found in (([2, 0], [0, 3]), ([2], []), ([], [1, 4]), (np.array([1]), [2])):
        assert chosen.with_labels(labels).tolist() == found


def test_the_hash_depends_on_videos_order_labels_and_classes_but_not_on_paths(records):
    swapped = ClassNames(("sit", "run", "walk"))
    others = [
        records.select([0, 1]),
        records.select([1, 0, 2]),
        replace(records, classes=swapped),
        replace(records, label_classes=np.array([2, 0, 2, 0], np.int32)),
    ]
    assert len({each.labels_sha256() for each in (records, *others)}) == 5
    times = (np.float32(column) for column in (records.label_starts_s, records.label_ends_s))
    columns = (records.ids.data, records.ids.offsets, records.label_offsets, records.label_classes, *times)
    assert records.labels_sha256() == columns_sha256(records.classes.names, columns)  # as older runs recorded it
    moved = replace(records, root=Path("/copies"), paths=StringColumn.from_strings(["a.mkv", "b.mkv", "c.mkv"]))
    assert moved.labels_sha256() == records.select([0, 1, 2]).labels_sha256() == records.labels_sha256()


def test_pickled_size(records):
    many = records.select(np.arange(3000) % 3)
    pickled = pickle.dumps(many)
    assert len(pickled) < len(many) * 100  # columns only, no object per record
    assert list(pickle.loads(pickled).ids) == list(many.ids)
