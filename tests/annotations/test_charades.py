"""Charades: CSV files with their peculiarities, folders of frames, and the frame lists of SlowFast."""

import numpy as np
import pytest
from PIL import Image

from tests.annotations.sets import labels, make, missing, read, write
from tests.refusals import refused
from vidtl.video import open_video

HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\r\n"
CLASSES = "c000 Hold\r\nc001 Open\r\nc002 Smile at a book\r\n"
FRAMES_HEADER = "original_vido_id video_id frame_id path labels\n"


def row(video_id, actions, length="10.00"):
    return f'{video_id},P001,Kitchen,6,7,Yes,"A person, who ""waits"".",door;book,One.;Two.,{actions},{length}\r\n'


def read_csv(root, rows, classes=CLASSES):
    write(root, {"Charades_v1_classes.txt": classes, "Charades_v1_train.csv": HEADER + rows})
    return read("charades", "train", root)


def frame_row(video_id, number, frame, labels):
    return f'{video_id} {number} {frame} {video_id}/{video_id}-{frame + 1:06d}.jpg "{labels}"\n'


def read_frames(root, rows, header=FRAMES_HEADER):
    write(root, {"Charades_v1_classes.txt": CLASSES, "frame_lists/train.csv": header + rows})
    return read("charades_frames", "train", root)


def write_frames(root, video_id, count):
    for number in range(1, count + 1):
        file = f"Charades_v1_rgb/{video_id}/{video_id}-{number:06d}.jpg"
        make(root, file)
        Image.new("RGB", (8, 6)).save(root / file)


def test_actions_with_times(tmp_path):
    records = read_csv(tmp_path, row("46GP8", "c002 1.90 7.20;c000 0.00 4.60") + row("N11GT", "c001 0 10"))
    assert records.multi_label
    assert records.classes.names == ("Hold", "Open", "Smile at a book")
    assert list(records.ids) == ["46GP8", "N11GT"]
    assert labels(records, 0) == [("Smile at a book", 1.9, 7.2), ("Hold", 0, 4.6)]
    assert records.targets(0).tolist() == [1, 0, 1]
    assert records.targets(0, 5, 6).tolist() == [0, 0, 1]
    assert records.lines.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ("", []),
        ("c000 2.00 31.50;c001 12.00 13.00;c001 5.00 4.00", [("Hold", 2, 10), ("Open", 10, 10), ("Open", 5, 5)]),
        ("c001 0 2;c001 6 8;", [("Open", 0, 2), ("Open", 6, 8)]),
    ],
)
def test_unusual_actions(tmp_path, actions, expected):
    records = read_csv(tmp_path, row("AAAAA", actions) + row("BBBBB", "c001 0.00 3.00"))
    assert labels(records, 0) == expected
    assert {records.classes.names[number] for number in records.labels(0)} == {name for name, _, _ in expected}
    assert records.labels(1).tolist() == [1]


def test_videos_of_either_release_are_found(tmp_path):
    make(tmp_path, "Charades_v1_480/AAAAA.mp4", "Charades_v1/BBBBB.mp4", "Charades_v1/AAAAA.mp4")
    records = read_csv(tmp_path, row("AAAAA", "c001 0 1") + row("BBBBB", "") + row("CCCCC", ""))
    assert list(records.paths) == ["Charades_v1_480/AAAAA.mp4", "Charades_v1/BBBBB.mp4", "Charades_v1_480/CCCCC.mp4"]
    assert missing(records) == [2]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (row("AAAAA", "c003 0 1"), "train.csv:2 | 003 | 0 to 2"),
        (row("AAAAA", "c001 0"), "train.csv:2 | 'c001 0' | 'c<number> <start> <end>'"),
        (row("AAAAA", "c001 0 1 2"), "train.csv:2 | 'c001 0 1 2'"),
        (row("AAAAA", "c001 a 1"), "train.csv:2 | actions | 'a'"),
        (row("AAAAA", "c001 0 1", "long"), "train.csv:2 | length | 'long'"),
        (row("AAAAA", "") + row("AAAAA", "c001 0 1"), "train.csv:3 | 'AAAAA' | train.csv:2"),
        (row("AAAAA", "c001 0 1") + row("AAAAA", "c001 0 2"), "train.csv:3 | 'AAAAA' | 1.0 | 2.0 | train.csv:2"),
        (row("../AAAA", ""), "train.csv:2 | '../AAAA'"),
    ],
)
def test_csv_mistakes(tmp_path, rows, message):
    with refused(*message.split(" | ")):
        read_csv(tmp_path, rows)


def test_csv_with_folders_of_frames(tmp_path):
    rows = "id,actions,length\nAAAAA,c001 0.00 0.10,0.25\nBBBBB,,3.00\nCCCCC,c000 0 1,2\n"
    write(tmp_path, {"Charades_v1_classes.txt": CLASSES, "Charades_v1_train.csv": rows})
    write_frames(tmp_path, "AAAAA", 6)
    make(tmp_path, "Charades_v1_480/BBBBB.mp4")
    records = read("charades", "train", tmp_path)
    assert list(records.paths)[:2] == ["Charades_v1_rgb/AAAAA", "Charades_v1_480/BBBBB.mp4"]
    assert missing(records) == [2]
    with open_video(records.path(0), root=tmp_path, frame_rate=records.frame_rate) as video:
        assert video.times_s == pytest.approx(np.arange(6) / 24)
        # A frame f, counted from 0, is active while start < f / 24 < end.
        active = [len(records.labels(0, time, time)) for time in video.times_s]
    assert active == [0, 1, 1, 0, 0, 0]


def test_labels_of_a_clip_are_those_of_its_frames(tmp_path):
    of_frame = [[], [0], [0, 2], [2], [], [0], [0], [], [1], [1, 2]]
    rows = [frame_row("AAAAA", 0, frame, ",".join(map(str, labels))) for frame, labels in enumerate(of_frame)]
    write_frames(tmp_path, "AAAAA", 10)
    records = read_frames(tmp_path, "".join(rows) + frame_row("BBBBB", 1, 0, "") + frame_row("BBBBB", 1, 1, ""))
    assert list(records.ids) == ["AAAAA", "BBBBB"]
    assert list(records.paths) == ["Charades_v1_rgb/AAAAA", "Charades_v1_rgb/BBBBB"]
    assert records.lines.tolist() == [2, 12]
    with open_video(records.path(0), root=tmp_path, frame_rate=records.frame_rate) as video:
        for first in range(10):
            for last in range(first, 10):
                expected = sorted(set().union(*of_frame[first : last + 1]))
                found = records.labels(0, video.times_s[first], video.times_s[last])
                assert found.tolist() == expected
    assert records.labels(0).tolist() == [0, 1, 2]
    assert records.labels(1).tolist() == []


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (frame_row("A", 0, 0, ""), "", "train.csv:1 | header | 'original_vido_id video_id frame_id path labels'"),
        ("A 0 0 A/A-1.jpg\n", FRAMES_HEADER, "train.csv:2 | 4 fields | 5"),
        (frame_row("A", 0, 0, "1, 2"), FRAMES_HEADER, "train.csv:2 | 6 fields"),
        (frame_row("A", 0, 0, "3"), FRAMES_HEADER, "train.csv:2 | label | 0 to 2"),
        (frame_row("A", 0, 0, "") + frame_row("A", 0, 2, ""), FRAMES_HEADER, "train.csv:3 | 'A/A-000003.jpg' | 'A'"),
        (frame_row("A", 0, 0, "") + "A 0 1 B/A-2.jpg 1\n", FRAMES_HEADER, "train.csv:3 | path | 'B/A-2.jpg' | 'A'"),
        ("A 0 0 cover.jpg 1\n", FRAMES_HEADER, "train.csv:2 | path | 'cover.jpg'"),
        ("A 0 0 ../A/A-1.jpg 1\n", FRAMES_HEADER, "train.csv:2 | '../A'"),
        ("", FRAMES_HEADER, "train.csv | no row"),
        ("", "", "train.csv | no row"),
    ],
)
def test_frame_list_mistakes(tmp_path, rows, header, message):
    with refused(*message.split(" | ")):
        read_frames(tmp_path, rows, header)


@pytest.mark.parametrize(("digits", "before"), [(6, 2), (6, 9), (1, 9), (6, 0)])
def test_a_frame_list_begins_with_the_first_image(tmp_path, digits, before):
    rows = [f"A 0 {frame} A/A-{before + 1 + frame:0{digits}d}.jpg 1\n" for frame in range(3)]
    assert len(read_frames(tmp_path, "".join(rows))) == 1
    make(tmp_path, f"Charades_v1_rgb/A/A-{before:0{digits}d}.jpg")
    with refused("train.csv:2", "/A'", f"'A-{before:0{digits}d}.jpg'"):
        read_frames(tmp_path, "".join(rows))
