"""Rows of finished batches on disk, so that an interrupted evaluation only does the rest.

    <folder>/<digest of the key>/000-0001.jsonl      launch 0, process 1

Each process of each launch appends to its own file, one line per batch: the first record number and the rows. The
key holds everything that decides a row, so rows of another model or configuration are in another folder. A line that a
killed process left unfinished is ignored, and its batch is done again.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vidtl.errors import UserError
from vidtl.evaluation.scoring import Scores
from vidtl.runtime.files import user_error_if_not_written

_log = logging.getLogger(__name__)


class ScoreStore:
    """Rows of float64 numbers by record number, in fixed batches."""

    def __init__(self, folder: Path, key: Mapping[str, Any], width: int) -> None:
        """
        Args:
            folder: place of the stores of all keys; it is made by `read`.
            key: JSON values that decide the rows.
            width: numbers per row.
        """
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self.folder = folder / digest[:16]
        self.width = width

    def read(self, batches: Sequence[range]) -> tuple[int, Scores]:
        """Return the number of this launch and the rows of earlier ones, each of `batches` at most once.

        Raises:
            UserError: the folder cannot be made or read.
        """
        due, found = {batch.start: batch for batch in batches}, Scores()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            files = sorted(self.folder.glob("*.jsonl"))
            lines = [line for file in files for line in file.read_bytes().split(b"\n")]
        except OSError as error:
            raise UserError(f"{self.folder} could not be read or written: {error.strerror}") from error
        for first, rows in filter(None, map(self._parsed, lines)):
            if first in due and len(rows) == len(due[first]):
                found.update(Scores(dict(zip(due.pop(first), rows, strict=True))))
        return 1 + max((int(file.name.partition("-")[0]) for file in files), default=-1), found

    @contextmanager
    def writer(self, launch: int, process_index: int) -> Iterator[Callable[[Scores], None]]:
        """Open the file of one process; yield a function that appends a batch.

        A batch with an unreadable video is not written, since the disk or network may have been at fault.

        Raises:
            UserError: it cannot be written, or another evaluation writes it.
        """
        path = self.folder / f"{launch:03d}-{process_index:04d}.jsonl"
        with user_error_if_not_written(path):
            file = path.open("xb", buffering=0)

        def append(batch: Scores) -> None:
            if batch.rows and not batch.failures:
                line = json.dumps([min(batch.rows), [row.tolist() for row in batch.rows.values()]]).encode() + b"\n"
                with user_error_if_not_written(path):
                    if file.write(line) < len(line):
                        raise OSError("only a part fitted on the disk")

        with file:
            yield append

    def remove(self) -> None:
        """Remove these rows, once the report is written; those of other keys stay and are named."""
        shutil.rmtree(self.folder, ignore_errors=True)
        others = sorted(self.folder.parent.iterdir()) if self.folder.parent.is_dir() else []
        if not others and self.folder.parent.is_dir():
            self.folder.parent.rmdir()
        for other in others:
            _log.info("%s holds scores of another checkpoint or configuration; they were not used", other)

    def _parsed(self, line: bytes) -> tuple[int, list[np.ndarray]] | None:
        try:
            first, rows = json.loads(line)
            table = np.array(rows, dtype=np.float64).reshape(-1, self.width)
            return (int(first), list(table)) if len(table) == len(rows) else None
        except (ValueError, TypeError):
            return None
