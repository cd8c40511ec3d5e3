"""Write train.csv, val.csv, train_b.csv and val_b.csv into ROOT: `python prepare.py LABELS ROOT` (see README.md)."""

import csv
import sys
from pathlib import Path

CLASSES = {"sleeping": "lie", "falled": "lie", "lying": "lie_down", "falling": "lie_down",
           "sit": "sit", "sitdown": "sit_down", "standup": "stand_up", "walk": "walk"}  # fmt: skip
MOST_BYTES, WINDOW_S = 4 << 20, 2  # larger recordings are left out


def read_windows(labels: Path, video: Path) -> list[tuple[str, float, float, float, str]]:
    """Return id, start, and start, end and class of the whole segment, of each window of a recording."""
    marked = {Path(line[0]).stem: line[1:] for line in csv.reader(labels.open(encoding="utf-8")) if line}
    fields, windows = iter(marked[video.stem]), []
    for first, last, word in zip(fields, fields, fields, strict=False):
        # rows of a thermal sensor of 7.793 Hz; the files play 24 frames per second as 25
        start, end = (max(0.0, round(0.12319 * int(row) - 0.3, 2)) for row in (first, last))
        for number in range(int(round(end - start, 2) // WINDOW_S) if word in CLASSES else 0):
            from_s = round(start + WINDOW_S * number, 2)
            windows.append((f"{video.stem}#t={from_s:g}", from_s, start, end, CLASSES[word]))
    return windows


if __name__ == "__main__":
    labels, root = map(Path, sys.argv[1:])
    videos = sorted(path for path in (root / "video").glob("*.mp4") if path.stat().st_size < MOST_BYTES)
    for suffix, held_out in (("", 1), ("_b", 2)):  # every fourth recording is for validation
        tables: dict[str, list[tuple[object, ...]]] = {"train": [], "val": []}
        for number, video in enumerate(videos):
            split = "val" if number % 4 == held_out else "train"
            for name, from_s, start, end, label in read_windows(labels, video):
                times = (from_s, round(from_s + WINDOW_S, 2)) if split == "val" else (start, end)
                tables[split].append((name, f"video/{video.name}", *times, label))
        for split, rows in tables.items():
            with (root / f"{split}{suffix}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([("id", "path", "start", "end", "label"), *rows])
