"""Read tables in CSV, JSON, JSON lines and Parquet: values of each row by column."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from vidtl.annotations.records import annotated_at
from vidtl.annotations.text_files import lacks_column, read_columns, text_lines
from vidtl.errors import UserError, did_you_mean

SUFFIXES = (".json", ".jsonl", ".parquet")


def read_entries(file: Path, keys: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line or position, from 1, and fields of each entry.

    A JSON file is a list of objects, or an object of them, whose names become the field `key`; where they are no
    objects, the field `value` holds them. `keys` lead to nested entries, which inherit the fields around them:
    `("database", "annotations")` of ActivityNet. An empty list of nested entries gives one with the fields around it.

    Raises:
        UserError: another kind of file, an object that repeats a name, or no pyarrow for Parquet.
    """
    if file.suffix == ".parquet":
        yield from enumerate(_parquet(file), start=1)
    elif file.suffix == ".jsonl":
        for line, text in text_lines(file):
            yield line, next(_walk([_parsed(f"{file}:{line}", text)], (), {}, {}))
    else:
        unseen = dict.fromkeys(keys)
        yield from enumerate(_walk(_parsed(str(file), file.read_bytes()), keys, {}, unseen), start=1)
        if unseen:
            raise UserError(f"{file}: no object has {min(unseen)!r}, a key of `entries`")


def read_table(
    file: Path,
    columns: Mapping[str, str],
    optional: Collection[str] = (),
    keys: Sequence[str] = (),
    separator: str = ";",
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line or position and values of each row of a CSV file, or of each entry of a file of `SUFFIXES`.

    Args:
        file: the ending decides the kind; anything else is CSV.
        columns: name in the file of each column; `a + b` combines two, which are then joined in the same way.
        optional: columns that the file may lack; their values are then empty.
        keys: see `read_entries`.
        separator: joins the items of lists.

    Raises:
        UserError: as `read_columns` and `read_entries`; a field is missing or no text. Entries, but not all of them,
            may lack `start`, `end` and `label`.
    """
    parts = {key: name.split(" + ") for key, name in columns.items()}
    names = dict.fromkeys(part for each in parts.values() for part in each)
    may_lack = {part for key in optional for part in parts.get(key, ())}
    if file.suffix in SUFFIXES:
        sparse = {part for key in ("start", "end", "label") for part in parts.get(key, ())}
        rows = _texts(file, names, sparse - may_lack, may_lack, keys, separator)
    else:
        rows = read_columns(
            file, {name: name for name in names if name not in may_lack or not lacks_column(file, name)}
        )
    for line, texts in rows:
        yield line, {key: " + ".join(filter(None, map(texts.get, each))) for key, each in parts.items()}


def is_entry_file(file: Path) -> bool:
    """Return True if positions in a file are numbers of entries, not lines."""
    return file.suffix in (".json", ".parquet")


def _texts(
    file: Path, names: Iterable[str], sparse: Set[str], may_lack: Set[str], keys: Sequence[str], separator: str
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the fields of each entry as texts; fields in `sparse` must be in one entry at least."""
    unseen, entry = set(sparse), dict[str, Any]()
    for line, entry in read_entries(file, keys):
        where, texts = annotated_at(file, line, is_entry_file(file)), {}
        for name in names:
            found, value = _field(entry, name)
            if found:
                unseen.discard(name)
                texts[name] = _text(value, separator, f"{where}: {name}")
            elif name not in sparse and name not in may_lack:
                raise UserError(f"{where}: no {name!r} in {short(entry)}; {did_you_mean(name, sorted(entry))}")
        yield line, texts
    if entry and unseen:
        raise UserError(f"{file}: no entry has {min(unseen)!r}; {did_you_mean(min(unseen), sorted(entry))}")


def _field(entry: Mapping[str, Any], name: str) -> tuple[bool, Any]:
    """Find a field: `segment.0` is the first item of the list `segment`, `a.b` the field `b` of the object `a`."""
    value: Any = entry
    for part in [name] if name in entry else name.split("."):
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            return False, None
    return True, value


def _text(value: Any, separator: str, where: str) -> str:
    """Join the items of a list; those of an object of lists, as in mmaction2's HVU, follow the name of their list."""
    if isinstance(value, Mapping):
        value = [
            f"{key} {item}" for key, items in value.items() for item in (items if isinstance(items, list) else [items])
        ]
    items = [str(item).strip() for item in (value if isinstance(value, list) else [] if value is None else [value])]
    if len(items) > 1 and (wrong := next((item for item in items if separator in item), None)):
        raise UserError(f"{where} has {wrong!r}, which contains the `separator` {separator!r}; another one is needed")
    return separator.join(items)


def short(value: Any) -> str:
    """Format a value in 80 characters at most."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _walk(
    value: Any, keys: Sequence[str], outer: dict[str, Any], unseen: dict[str, None], inside: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield the entries below a value, and remove the keys that are found from `unseen`.

    `inside` a list or object of entries, an object without the next key is an entry.
    """
    if isinstance(value, list):
        if outer and not value:
            yield outer
        for item in value:
            yield from _walk(item, keys, outer, unseen, True)
    elif isinstance(value, dict) and keys and keys[0] in value:
        unseen.pop(keys[0], None)
        yield from _walk(value[keys[0]], keys[1:], {**outer, **value}, unseen, inside)
    elif isinstance(value, dict) and not inside:
        for key, item in value.items():
            yield from _walk(item, keys, {**outer, "key": key}, unseen, True)
    else:
        yield {**outer, **(value if isinstance(value, dict) else {"value": value})}


def _parsed(where: str, text: str | bytes) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = dict(pairs)
        if len(names) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise UserError(f"{where}: the name {twice!r} is there twice; once is allowed")
        return names

    try:
        return json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not a JSON file ({error})") from None


def _parquet(file: Path) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError:
        raise UserError(f"{file}: Parquet needs the package pyarrow; install it, or convert the file to CSV") from None
    try:
        with parquet.ParquetFile(file) as table:
            for batch in table.iter_batches():
                yield from batch.to_pylist()
    except ArrowInvalid as error:
        raise UserError(f"{file}: not a Parquet file ({' '.join(str(error).split())})") from None
