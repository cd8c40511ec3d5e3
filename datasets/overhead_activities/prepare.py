"""Write train.csv, val.csv, train_b.csv and val_b.csv into ROOT: `python prepare.py LABELS ROOT` (see README.md)."""

import csv
import sys
from pathlib import Path

CLASSES = {
    "sleeping": "lie", "falled": "lie", "lying": "lie_down", "falling": "lie_down",
    "sit": "sit", "sitdown": "sit_down", "standup": "stand_up", "walk": "walk",
}  # fmt: skip
"""Classes by the words of the source."""

MOST_BYTES = 4 << 20  # larger recordings are left out
WINDOW_S = 2


def read_windows(labels: Path, root: Path) -> list[list[tuple[str, str, float, float, str, float, float]]]:
    """Return id, path, bounds and class of the windows of each recording, then the bounds of the whole segment."""
    marked = {Path(line[0]).stem: line[1:] for line in csv.reader(labels.open(encoding="utf-8")) if line}
    recordings = []
    for video in sorted(path for path in (root / "video").glob("*.mp4") if path.stat().st_size < MOST_BYTES):
        fields, windows = iter(marked[video.stem]), []
        for first, last, word in zip(fields, fields, fields, strict=False):
            # rows of a thermal sensor of 7.793 Hz; the files play 24 frames per second as 25
            start, end = (max(0.0, round(0.12319 * int(row) - 0.3, 2)) for row in (first, last))
            for number in range(int(round(end - start, 2) // WINDOW_S) if word in CLASSES else 0):
                from_s = round(start + WINDOW_S * number, 2)
                name, bounds = f"{video.stem}#t={from_s:g}", (from_s, round(from_s + WINDOW_S, 2))
                windows.append((name, f"video/{video.name}", *bounds, CLASSES[word], start, end))
        recordings.append(windows)
    return recordings


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    found = read_windows(Path(sys.argv[1]), folder)
    for suffix, first in (("", 1), ("_b", 2)):  # every fourth recording is for validation
        for split in ("train", "val"):
            rows = [w for i, part in enumerate(found) if (i % 4 == first) == (split == "val") for w in part]
            with (folder / f"{split}{suffix}.csv").open("w", newline="") as file:
                bounds = [(w[2:4] if split == "val" else w[5:]) for w in rows]
                table = [(w[0], w[1], *times, w[4]) for w, times in zip(rows, bounds, strict=True)]
                csv.writer(file).writerows([("id", "path", "start", "end", "label"), *table])
