"""Read tables in CSV, JSON, JSON lines and Parquet: values of each row by column."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

from vidtl.annotations.records import ENTRY_SUFFIXES, annotated_at
from vidtl.annotations.text_files import lacks_column, read_columns, text_lines
from vidtl.errors import UserError, did_you_mean

_Rows = Iterator[tuple[int, dict[str, Any]]]


def read_table(
    file: Path, columns: Mapping[str, str], optional: Collection[str], keys: Sequence[str], separator: str
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line or position, from 1, and values of each row; the ending decides the kind of file, CSV by default.

    Args:
        file: a JSON file is a list of objects, or an object of them, whose names become the field `key`; values that
            are no objects become the field `value`.
        columns: name of each column; `a + b` combines two, whose values are joined in the same way. In entries,
            `segment.0` is the first item of the list `segment`.
        optional: columns that the file may lack; some entries may always lack `start`, `end` and `label`.
        keys: lead to nested entries of a JSON file, which inherit the fields around them; an empty list of them is one.
        separator: joins the items of a list.

    Raises:
        UserError: another kind of file, a missing field, an object that repeats a name, or no pyarrow for Parquet.
    """
    if keys and file.suffix != ".json":
        raise UserError(f"{file}: dataset.yaml has `entries`, which is for JSON files")
    parts = {key: name.split(" + ") for key, name in columns.items()}
    names = [*dict.fromkeys(part for each in parts.values() for part in each)]
    may_lack = {part for key in optional for part in parts.get(key, ())}
    if file.suffix in (".jsonl", *ENTRY_SUFFIXES):
        sparse = {part for key in ("start", "end", "label") for part in parts.get(key, ())}
        rows = _texts(file, names, sparse - may_lack, may_lack, keys, separator)
    else:
        rows = read_columns(file, {n: n for n in names if n not in may_lack or not lacks_column(file, n)})
    for line, texts in rows:
        yield line, {key: " + ".join(filter(None, map(texts.get, each))) for key, each in parts.items()}


def _texts(
    file: Path, names: Sequence[str], sparse: set[str], may_lack: set[str], keys: Sequence[str], separator: str
) -> _Rows:
    """Yield the fields of each entry as texts; those in `sparse` must be in one entry at least."""
    unseen, entry = set(sparse), dict[str, Any]()
    for line, entry in _entries(file, names, keys):
        where, texts = annotated_at(file, line), {}
        for name in names:
            try:
                texts[name] = _text(_field(entry, name), separator, f"{where}: {name}")
                unseen.discard(name)
            except LookupError:
                if name not in sparse | may_lack:
                    hint = did_you_mean(name, sorted(entry))
                    raise UserError(f"{where}: no {name!r} in {short(entry)}; {hint}") from None
        yield line, texts
    if entry and unseen:
        raise UserError(f"{file}: no entry has {min(unseen)!r}; {did_you_mean(min(unseen), sorted(entry))}")


def _field(entry: Mapping[str, Any], name: str) -> Any:
    """Return the field of a name, or of names and numbers separated by dots; LookupError if there is none."""
    value: Any = entry
    for part in [name] if name in entry else name.split("."):
        value = {str(index): item for index, item in enumerate(value)} if isinstance(value, list) else value
        if not isinstance(value, dict):
            raise LookupError(name)
        value = value[part]
    return value


def _text(value: Any, separator: str, where: str) -> str:
    if isinstance(value, Mapping):  # {"action": [5, 7]} of mmaction2's HVU
        value = [f"{key} {item}" for key, items in value.items() for item in items]
    items = [str(item).strip() for item in (value if isinstance(value, list) else [] if value is None else [value])]
    if len(items) > 1 and (wrong := next((item for item in items if separator in item), None)):
        raise UserError(f"{where} has {wrong!r}, which contains the `separator` {separator!r}; another one is needed")
    return separator.join(items)


def _entries(file: Path, names: Sequence[str], keys: Sequence[str]) -> _Rows:
    if file.suffix == ".jsonl":
        for line, text in text_lines(file):
            yield from ((line, entry) for entry in _walk([_parsed(f"{file}:{line}", text)], (), {}))
    elif file.suffix == ".parquet":
        try:
            from pyarrow import parquet

            columns = [*{name.partition(".")[0] for name in names}.union(names)]  # others may hold whole videos
            yield from enumerate(parquet.read_table(file, columns=columns).to_pylist(), start=1)
        except ImportError:
            raise UserError(f"{file}: Parquet needs the package pyarrow; install it, or use CSV") from None
        except ValueError as error:
            raise UserError(f"{file}: not a Parquet file ({' '.join(str(error).split())})") from None
    else:
        content = file.read_bytes()
        if lost := [key for key in keys if f'"{key}"'.encode() not in content]:
            raise UserError(f"{file}: no object has {lost[0]!r}, a key of `entries` in dataset.yaml")
        yield from enumerate(_walk(_parsed(str(file), content), keys, {}), start=1)


def _walk(value: Any, keys: Sequence[str], outer: dict[str, Any], inside: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the entries below a value; `inside` a list or object of them, an object without the next key is one."""
    if isinstance(value, list):
        if outer and not value:
            yield outer
        for item in value:
            yield from _walk(item, keys, outer, True)
    elif isinstance(value, dict) and keys and keys[0] in value:
        yield from _walk(value[keys[0]], keys[1:], {**outer, **value}, inside)
    elif isinstance(value, dict) and not inside:
        for key, item in value.items():
            yield from _walk(item, keys, {**outer, "key": key}, True)
    else:
        yield {**outer, **(value if isinstance(value, dict) else {"value": value})}


def _parsed(where: str, text: str | bytes) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            raise UserError(f"{where}: {max(names, key=names.count)!r} is there twice; once is allowed")
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not a JSON file ({error})") from None
