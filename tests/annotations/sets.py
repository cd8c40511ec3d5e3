"""Small data sets for tests: files, descriptions, and the content of records."""

from pathlib import Path

from vidtl.annotations.description import load_description, read_records
from vidtl.annotations.records import Records


def make(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def write(root: Path, files: dict[str, str]) -> None:
    """Write text files byte for byte, escaped bytes too, and create their folders."""
    for path, text in files.items():
        make(root, path)
        (root / path).write_bytes(text.encode(errors="surrogateescape"))


def read(dataset: str | Path, split: str, root: Path) -> Records:
    return read_records(load_description(str(dataset)), split, root)


def missing(records: Records) -> list[int]:
    """Return the numbers of the records whose file does not exist, in rising order."""
    return [index for index in range(len(records)) if not records.path(index).exists()]


def names(records: Records) -> list[str]:
    return [records.classes.names[number] for number in records.label_classes]


def labels(records: Records, index: int) -> list[tuple[str, float, float]]:
    """Return the labels of a record with their times, to the millisecond."""
    part = slice(records.label_offsets[index], records.label_offsets[index + 1])
    times = (records.label_starts_s[part].tolist(), records.label_ends_s[part].tolist())
    rows = zip(records.label_classes[part].tolist(), *times, strict=True)
    return [(records.classes.names[number], round(start, 3), round(end, 3)) for number, start, end in rows]
