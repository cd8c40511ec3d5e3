"""Read tables in CSV, JSON, JSON lines and Parquet: values of each row by column."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

from vidtl.annotations.records import ENTRY_SUFFIXES, annotated_at
from vidtl.annotations.text_files import read_columns, text_lines
from vidtl.config.documents import parse_json
from vidtl.errors import UserError, did_you_mean

_NEEDS = {"start": "one", "end": "one", "label": "none", "actions": "none", "length": "none"}
"""Columns that not all entries need; those that none needs are absent from lists without labels."""

_ABSENT = object()
_NAN = {"parse_constant": lambda _: None}  # of pandas, is empty
_MOST_JSON_BYTES, _MOST_JSON_VALUES = 256 << 20, 10_000_000  # which take a hundred times their text


def read_table(
    file: Path, columns: Mapping[str, str], keys: Sequence[str], separator: str, lacking: list[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line or position, from 1, and values of each row; the ending decides the kind of file, CSV by default.

    JSON files are lists of objects, or objects of them, whose names become the field `key`; other values become the
    field `value`. Some entries may lack `start`, `end`, `label`. `lacking` receives messages of labels that all lack.

    In `columns`, `a + b` joins the values of two, and `segment.0` is the first item of the list `segment`. `keys` lead
    to nested entries of a JSON file, with the fields around them. The `separator` joins the items of a list.

    UserError: another kind of file, a missing field, an object that repeats a name, or no pyarrow for Parquet.
    """
    if keys and file.suffix != ".json":
        raise UserError(f"{file}: dataset.yaml has `entries`, which is for JSON files")
    parts = {key: name.split(" + ") for key, name in columns.items()}
    needs = {part: _NEEDS.get(key, "all") for key, each in parts.items() for part in each}
    if file.suffix in (".jsonl", *ENTRY_SUFFIXES):
        rows = _texts(file, needs, keys, separator, lacking)
    else:
        rows = read_columns(file, {n: n for n in needs}, [n for n, need in needs.items() if need == "none"], lacking)
    for line, texts in rows:
        yield line, {key: " + ".join(filter(None, map(texts.get, each))) for key, each in parts.items()}


def _texts(
    file: Path, needs: Mapping[str, str], keys: Sequence[str], separator: str, lacking: list[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the fields of each entry as texts; `all` entries, `one` at least or `none` need each field."""
    unseen, entry = set(needs), dict[str, Any]()
    for line, entry in _entries(file, needs, keys):
        where, texts = annotated_at(file, line), {}
        for name, need in needs.items():
            value = _field(entry, name)
            if value is not _ABSENT:
                texts[name] = _text(value, separator, f"{where}: {name}")
            elif need == "all":
                raise UserError(f"{where}: no {name!r} in {short(entry)}; {did_you_mean(name, sorted(entry))}")
        unseen -= texts.keys()
        yield line, texts
    for name in sorted(unseen) if entry else ():
        lacking.insert(0, f"{file}: no entry has {name!r}; {did_you_mean(name, sorted(entry))}")
        if needs[name] == "one":
            raise UserError(lacking[0])


def _field(entry: dict[str, Any], name: str) -> Any:
    """Return the field of a name, or of names and numbers separated by dots."""
    value: Any = entry
    try:
        for part in [name] if name in entry else name.split("."):
            value = value[int(part) if isinstance(value, list) else part]
    except (LookupError, TypeError, ValueError):
        return _ABSENT
    return value


def _text(value: Any, separator: str, where: str) -> str:
    if isinstance(value, dict):  # {"action": [5, 7]} of mmaction2's HVU
        lists = {key: items if isinstance(items, list) else [items] for key, items in value.items()}
        value = [f"{key} {item}" for key, items in lists.items() for item in items]
    if not isinstance(value, list):
        return "" if value is None else str(value).strip()
    texts = [str(item).strip() for item in value if item is not None]
    if wrong := next((text for text in texts if separator in text), None):
        raise UserError(f"{where} has {wrong!r}, which contains the `separator` {separator!r}; another one is needed")
    return separator.join(texts)


def _entries(file: Path, names: Collection[str], keys: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    if file.suffix == ".jsonl":
        for line, text in text_lines(file):
            entry = parse_json(text, f"{file}:{line}", **_NAN)
            yield from ((line, each) for each in _walk([entry], (), {}))
    elif file.suffix == ".parquet":
        yield from enumerate(_read_parquet(file, names), start=1)
    else:
        size = file.stat().st_size
        content = file.read_bytes() if size <= _MOST_JSON_BYTES else b""
        if size > _MOST_JSON_BYTES or sum(map(content.count, (b",", b"{", b"["))) > _MOST_JSON_VALUES:
            most = f"allowed: {_MOST_JSON_BYTES} bytes, {_MOST_JSON_VALUES} values; JSON lines and CSV may be longer"
            raise UserError(f"{file}: JSON of {size} bytes; {most}")
        if lost := [key for key in keys if f'"{key}"'.encode() not in content]:
            raise UserError(f"{file}: no object has {lost[0]!r}, a key of `entries` in dataset.yaml")
        yield from enumerate(_walk(parse_json(content, str(file), **_NAN), keys, {}), start=1)


def _read_parquet(file: Path, names: Collection[str]) -> list[dict[str, Any]]:
    try:
        from pyarrow import parquet

        columns = [*{name.partition(".")[0] for name in names}.union(names)]  # others may hold whole videos
        rows: list[dict[str, Any]] = parquet.read_table(file, columns=columns).to_pylist()
    except ImportError:
        raise UserError(f"{file}: Parquet needs the package pyarrow; install it, or use CSV") from None
    except ValueError as error:
        raise UserError(f"{file}: not a Parquet file ({' '.join(str(error).split())})") from None
    return rows


def _walk(value: Any, keys: Sequence[str], outer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the items of a list or an object, or where an item has the next key, those below it."""
    items: Iterable[Any]
    if isinstance(value, list):
        items = value or [{}] * bool(outer)
    elif isinstance(value, dict) and not (keys and keys[0] in value):
        items = ({"key": key, **(item if isinstance(item, dict) else {"value": item})} for key, item in value.items())
    else:
        items = [value]
    for item in items:
        entry = {**outer, **(item if isinstance(item, dict) else {"value": item})}
        if keys and isinstance(item, dict) and keys[0] in item:
            yield from _walk(item[keys[0]], keys[1:], entry)
        else:
            yield entry
