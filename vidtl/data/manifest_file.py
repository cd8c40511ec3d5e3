"""The file of a manifest: columns in an `.npz` without pickle, with a version and a checksum over all of them."""

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidtl.data.records import StringColumn
from vidtl.errors import UserError
from vidtl.runtime.files import replacing, user_error_if_not_written

VERSION = 1
_HEADER = "header"


@dataclass(frozen=True, eq=False)
class Columns:
    """N files, M kinds of streams; distinct reasons and names are stored once."""

    paths: StringColumn
    """Rising in the order of their UTF-8 bytes."""
    reasons: StringColumn
    names: StringColumn
    streams: NDArray[np.int64]
    """[M, 12], see `Stream`."""
    status: NDArray[np.uint8]
    reason: NDArray[np.int32]
    depth: NDArray[np.uint8]
    size: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]
    fingerprint: NDArray[np.uint64]
    stream: NDArray[np.int32]
    """Row of `streams`, or -1."""
    num_frames: NDArray[np.int32]
    num_decoded: NDArray[np.int32]
    duration_s: NDArray[np.float64]
    timeline_data: NDArray[np.uint8]
    timeline_offsets: NDArray[np.int64]
    """[N + 1]: see `pack_timeline` for what lies between two of them."""

    @property
    def num_bytes(self) -> int:
        """Memory of all columns."""
        return sum(array.nbytes for array in _arrays(self).values())


def write_columns(columns: Columns, file: Path) -> None:
    """Write the file whole or not at all: the same columns give the same bytes.

    Raises:
        UserError: it cannot be written.
    """
    arrays = _arrays(columns)
    header = {"format": "vidtl manifest", "version": VERSION, "checksum": _checksum(arrays)}
    arrays[_HEADER] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with user_error_if_not_written(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays)


def read_columns(file: Path) -> Columns:
    """Read and check a manifest.

    Raises:
        UserError: it is damaged, something else, or of another version.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            header = json.loads(archive[_HEADER].tobytes())
            version = header["version"]
            arrays = {name: archive[name] for name in archive.files if name != _HEADER} if version == VERSION else {}
    except Exception as error:  # zipfile, zlib, NumPy and json each have several of their own
        raise _damaged(file, f"{type(error).__name__}: {error}") from error
    if version != VERSION:
        raise UserError(
            f"manifest {str(file)!r} has version {version!r}, this is for version {VERSION}; run tools/prepare.py again"
        )
    if header.get("checksum") != _checksum(arrays):
        raise _damaged(file, "its checksum is wrong")
    try:
        return _columns(arrays)
    except (KeyError, ValueError) as error:
        raise _damaged(file, f"a column is missing or has another length ({error})") from error


def _damaged(file: Path, reason: str) -> UserError:
    first_line = reason.strip().partition("\n")[0]
    return UserError(
        f"manifest {str(file)!r} is damaged ({first_line}); delete it and run tools/prepare.py again, "
        "or set data.manifest to 'none'"
    )


def _arrays(columns: Columns) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for field in fields(columns):
        column = getattr(columns, field.name)
        if isinstance(column, StringColumn):
            arrays[f"{field.name}_data"], arrays[f"{field.name}_offsets"] = column.data, column.offsets
        else:
            arrays[field.name] = column
    return arrays


def _columns(arrays: dict[str, NDArray[Any]]) -> Columns:
    values: dict[str, Any] = {}
    for field in fields(Columns):
        if field.type is StringColumn:
            values[field.name] = StringColumn(arrays[f"{field.name}_data"], arrays[f"{field.name}_offsets"])
        else:
            values[field.name] = arrays[field.name]
    columns = Columns(**values)
    count = len(columns.paths)
    for field in fields(Columns):
        column = values[field.name]
        wanted = count + 1 if field.name == "timeline_offsets" else count
        if field.name not in ("reasons", "names", "streams", "timeline_data") and len(column) != wanted:
            raise ValueError(f"{field.name} has {len(column)} rows for {count} files")
    return columns


def _checksum(arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
