"""Scans of folders of numbered images."""

from pathlib import Path

from tests.video.test_images import write
from vidtl.prepare.scan import ScanJob, limit_s, scan_file


def test_a_thorough_scan_decodes_every_image(tmp_path: Path) -> None:
    for name in ("whole", "damaged", "broken"):
        write(tmp_path / name, "{}.jpg", count=4)
    truncated = (tmp_path / "whole/1.jpg").read_bytes()[:-40]  # its header is whole
    (tmp_path / "damaged/2.jpg").write_bytes(b"")
    (tmp_path / "damaged/3.jpg").write_bytes(truncated)
    for file in (tmp_path / "broken").iterdir():
        file.write_bytes(truncated)
    folders = ("whole", "damaged", "broken", "whole/1.jpg")
    quick, thorough = (
        [scan_file(ScanJob(tmp_path, name, depth, frame_rate=10.0)) for name in folders]
        for depth in ("packets", "frames")
    )
    assert {(entry.status, entry.num_decoded) for entry in quick} == {("ok", -1)}
    assert [(entry.status, entry.num_frames, entry.num_decoded) for entry in thorough] == [
        ("ok", 4, 4),
        ("damaged", 4, 2),
        ("unreadable", 4, 0),
        ("ok", 1, 1),
    ]
    assert thorough[1].reason.startswith("2 of 4 frames do not decode, the first is 1: not an image")
    assert thorough[2].reason.startswith("4 of 4 frames do not decode, the first is 0: ")


def test_a_folder_has_the_time_of_its_images(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", count=1)
    (folder / "000001.png").write_bytes(bytes(30_000_000))
    assert limit_s(60.0, folder) < 61
    assert 90 <= limit_s(60.0, folder, whole_folders=True) < 91
