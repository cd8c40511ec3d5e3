"""Charades as folders of frames: by its own CSV files, and by the frame lists of SlowFast and pytorchvideo."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.absent import missing
from tests.refusals import refused
from vidtl.annotations.description import load_description, read_records
from vidtl.annotations.records import Records
from vidtl.errors import UserError
from vidtl.video import open_video

HEADER = "original_vido_id video_id frame_id path labels\n"
CLASSES = "c000 Holding some clothes\nc001 Opening a door\nc002 Smiling at a book\n"


def write_frames(root: Path, video_id: str, count: int) -> None:
    folder = root / "Charades_v1_rgb" / video_id
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        Image.new("RGB", (8, 6)).save(folder / f"{video_id}-{number:06d}.jpg")


def row(video_id: str, number: int, frame: int, labels: str) -> str:
    return f'{video_id} {number} {frame} {video_id}/{video_id}-{frame + 1:06d}.jpg "{labels}"\n'


def read(root: Path, rows: str, header: str = HEADER) -> Records:
    (root / "frame_lists").mkdir(exist_ok=True)
    (root / "frame_lists" / "train.csv").write_text(header + rows)
    (root / "Charades_v1_classes.txt").write_text(CLASSES)
    return read_records(load_description("charades_frames"), "train", root)


def test_charades_from_folders_of_frames(tmp_path: Path) -> None:
    (tmp_path / "Charades_v1_classes.txt").write_text(CLASSES)
    (tmp_path / "Charades_v1_train.csv").write_text(
        "id,actions,length\nAAAAA,c001 0.00 0.10,0.25\nBBBBB,,3.00\nCCCCC,c000 0 1,2\n"
    )
    write_frames(tmp_path, "AAAAA", 6)
    (tmp_path / "Charades_v1_480").mkdir()
    (tmp_path / "Charades_v1_480" / "BBBBB.mp4").touch()
    records = read_records(load_description("charades"), "train", tmp_path)
    assert list(records.paths)[:2] == ["Charades_v1_rgb/AAAAA", "Charades_v1_480/BBBBB.mp4"]
    assert missing(records) == [2]
    with open_video(records.path(0), root=tmp_path, frame_rate=records.frame_rate) as video:
        assert video.times_s == pytest.approx(np.arange(6) / 24)
        # A frame f, counted from 0, is active while start < f / 24 < end.
        active = [len(records.labels_between(0, time, time)) for time in video.times_s]
    assert active == [0, 1, 1, 0, 0, 0]


def test_labels_of_a_clip_are_those_of_its_frames(tmp_path: Path) -> None:
    of_frame = [[], [0], [0, 2], [2], [], [0], [0], [], [1], [1, 2]]
    rows = [row("AAAAA", 0, frame, ",".join(map(str, labels))) for frame, labels in enumerate(of_frame)]
    write_frames(tmp_path, "AAAAA", 10)
    records = read(tmp_path, "".join(rows) + row("BBBBB", 1, 0, "") + row("BBBBB", 1, 1, ""))
    assert list(records.ids) == ["AAAAA", "BBBBB"]
    assert list(records.paths) == ["Charades_v1_rgb/AAAAA", "Charades_v1_rgb/BBBBB"]
    assert records.classes.names == ("Holding some clothes", "Opening a door", "Smiling at a book")
    assert records.lines.tolist() == [2, 12]
    with open_video(records.path(0), root=tmp_path, frame_rate=records.frame_rate) as video:
        for first in range(10):
            for last in range(first, 10):
                expected = sorted(set().union(*of_frame[first : last + 1]))
                found = records.labels_between(0, video.times_s[first], video.times_s[last])
                assert found.tolist() == expected
    assert records.labels(0).tolist() == [0, 1, 2]
    assert records.labels(1).tolist() == []


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (
            row("A", 0, 0, ""),
            "",
            "train.csv:1 | header | 'original_vido_id video_id frame_id path labels'",
        ),
        ("A 0 0 A/A-1.jpg\n", HEADER, "train.csv:2 | 4 fields; 5 are needed"),
        (row("A", 0, 0, "1, 2"), HEADER, "train.csv:2 | 6 fields"),
        (row("A", 0, 0, "3"), HEADER, "train.csv:2 | label | 0 to 2"),
        (row("A", 0, 0, "") + row("A", 0, 2, ""), HEADER, "train.csv:3 | path | 'A/A-000003.jpg' | 'A'"),
        (row("A", 0, 0, "") + "A 0 1 B/A-2.jpg 1\n", HEADER, "train.csv:3 | path | 'B/A-2.jpg' | 'A'"),
        ("A 0 0 cover.jpg 1\n", HEADER, "train.csv:2 | path | 'cover.jpg'"),
        ("A 0 0 ../A/A-1.jpg 1\n", HEADER, "train.csv:2 | '../A'"),
        ("", HEADER, "train.csv | no row belongs"),
        ("A 0 0 A/A-1.jpg\n", "", "train.csv:1 | header | 'A 0 0 A/A-1.jpg'"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path: Path, rows: str, header: str, message: str) -> None:
    with refused(*message.split(" | ")):
        read(tmp_path, rows, header)


@pytest.mark.parametrize(("digits", "before"), [(6, 2), (6, 9), (1, 9), (6, 0)])
def test_a_list_begins_with_the_first_image(tmp_path: Path, digits: int, before: int) -> None:
    folder = tmp_path / "Charades_v1_rgb/A"
    folder.mkdir(parents=True)
    rows = [f"A 0 {frame} A/A-{before + 1 + frame:0{digits}d}.jpg 1\n" for frame in range(3)]
    assert len(read(tmp_path, "".join(rows))) == 1
    (folder / f"A-{before:0{digits}d}.jpg").touch()
    with pytest.raises(UserError, match=rf"train\.csv:2: .* is listed first, but .*/A' also has 'A-0*{before}\.jpg'"):
        read(tmp_path, "".join(rows))


def test_a_list_of_frames_needs_their_rate(tmp_path: Path) -> None:
    text = "format: frame_list\nlabels: multi\nclasses: c.txt\nsplits: {train: {annotations: a.csv}}\n"
    (tmp_path / "dataset.yaml").write_text(text)
    with refused("`classes`", "`frame_rate`"):
        load_description(str(tmp_path))
    (tmp_path / "dataset.yaml").write_text(text + "frame_rate: -24\n")
    with refused("frame_rate", "-24.0"):
        load_description(str(tmp_path))
    (tmp_path / "dataset.yaml").write_text(text.replace("multi", "single") + "frame_rate: 24\n")
    with refused("labels", "'single'", "'multi'", "frame_list"):
        load_description(str(tmp_path))
