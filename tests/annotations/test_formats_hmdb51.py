"""HMDB51's official splits, generated in their form."""

from pathlib import Path

import pytest

from tests.data.absent import missing
from tests.refusals import refused
from vidtl.annotations.description import load_description, read_records
from vidtl.annotations.records import Records

HOSTILE = "20060723sfjffangelina_clap_u_nm_np1_fr_med_#1!&(x)"


def write(root: Path) -> None:
    folder = root / "testTrainMulti_7030_splits"
    folder.mkdir()
    (folder / "clap_test_split1.txt").write_text(f"{HOSTILE}.avi 1 \nb.avi 2 \nc.avi 0 \n")
    (folder / "brush_hair_test_split1.txt").write_text("d.avi 2 \ne.avi 1 \n")
    (folder / "clap_test_split2.txt").write_text("c.avi 1 \n")
    (root / "clap").mkdir()
    (root / "clap" / f"{HOSTILE}.avi").touch()


def read(root: Path, split: str) -> Records:
    return read_records(load_description("hmdb51"), split, root)


def test_flags_are_splits_and_files_are_classes(tmp_path: Path) -> None:
    write(tmp_path)
    train, val = read(tmp_path, "train"), read(tmp_path, "val")
    assert len(train.classes) == 51
    assert train.classes.names == val.classes.names == tuple(sorted(train.classes.names))
    assert list(train.ids) == ["brush_hair/e", f"clap/{HOSTILE}"]
    assert list(val.ids) == ["brush_hair/d", "clap/b"]
    assert [train.classes.names[label] for label in train.label_classes] == ["brush_hair", "clap"]
    assert list(train.paths)[1] == f"clap/{HOSTILE}.avi"
    assert missing(train) == [0]
    assert [train.origin(index).rpartition("/")[2] for index in range(2)] == [
        "brush_hair_test_split1.txt:2",
        "clap_test_split1.txt:1",
    ]


def test_a_split_without_rows_of_a_flag_is_told(tmp_path: Path) -> None:
    write(tmp_path)
    with refused("clap_test_split2.txt", "no row belongs to this split"):
        read(tmp_path, "val2")
    with refused("'*_test_split3.txt'"):
        read(tmp_path, "train3")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b.avi 3", "clap_test_split1.txt:1 | 'b.avi 3'"),
        ("b.avi", "clap_test_split1.txt:1 | 'b.avi'"),
        ("../b.avi 1", "clap_test_split1.txt:1 | '../b.avi'"),
        ("b.avi 1\nb.avi 1", "clap_test_split1.txt:2 | 'clap/b'"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    write(tmp_path)
    (tmp_path / "testTrainMulti_7030_splits" / "clap_test_split1.txt").write_text(line)
    with refused(*message.split(" | ")):
        read(tmp_path, "train")
