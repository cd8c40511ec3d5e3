"""Results on the disk as they come, one JSON object per line: what a killed run leaves for the next one."""

import fcntl
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vidtl.errors import UserError

# Between two waits for the disk; the lines in between survive the death of the process, not that of the machine.
_SYNC_EVERY_S = 5.0


class Journal:
    """An append-only file that one process at a time may have open; use as a context manager."""

    def __init__(self, file: Path) -> None:
        """Open or create the file.

        Raises:
            UserError: it cannot be written, or another process is writing it.
        """
        self.file = file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._stream = file.open("a+b")
        except OSError as error:
            raise cannot_write(file, error) from error
        try:
            fcntl.lockf(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._stream.close()
            raise UserError(f"{file} is in use: another process prepares the same files") from error
        self._synced_s = time.monotonic()
        self.entries = self._read()
        """What the file held when it was opened."""

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add one result; it is kept if the process dies right after."""
        try:
            self._stream.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
            self._stream.flush()
            if time.monotonic() - self._synced_s > _SYNC_EVERY_S:
                self.sync()
        except OSError as error:
            raise cannot_write(self.file, error) from error

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        os.fsync(self._stream.fileno())
        self._synced_s = time.monotonic()

    def _read(self) -> list[dict[str, Any]]:
        """All whole lines; the torn end that a killed machine leaves is cut off."""
        entries: list[dict[str, Any]] = []
        self._stream.seek(0)
        end = 0
        for line in self._stream:
            try:
                entry = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                entry = None
            if not isinstance(entry, dict):
                break
            entries.append(entry)
            end += len(line)
        self._stream.truncate(end)
        return entries

    def delete(self) -> None:
        """Remove the file; its content is in a manifest now."""
        self.file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()


def cannot_write(file: Path, error: OSError) -> UserError:
    """What to do where a data root is read-only."""
    return UserError(
        f"{file} could not be written ({error.strerror or error}); --output names another folder, "
        "which training and evaluation then need as data.manifest"
    )
