"""What an evaluation has found so far, kept so that a killed one goes on where it was.

    <folder>/<fingerprint of the key>/000-0001.jsonl      launch 0, process 1

The key holds everything that decides a score (the model's weights, the data, the protocol, the settings that change
pixels, the device); its fingerprint names the folder and the key is the first line of every file, so that results of
another checkpoint or configuration are never mixed in. Every further line is one group of videos (see
`vidtl.evaluation.batching`), with a checksum; a torn line fails it and the group is scored again.
So is a group with a video that could not be read, since that may have been the fault of a disk or a network.
Files are only ever appended to, by the one process that made them. Nothing in them is code.
"""

import binascii
import hashlib
import json
import logging
import os
import shutil
import time
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vidtl.errors import UserError
from vidtl.evaluation.scoring import Shard
from vidtl.runtime.files import user_error_if_not_written

SYNC_EVERY_S = 10.0
"""Longest time until what was written is safe from a power cut. A killed process loses nothing that was written."""

_log = logging.getLogger(__name__)


class PartialResults:
    """The partial results of one evaluation."""

    def __init__(self, folder: Path, key: Mapping[str, Any], num_classes: int) -> None:
        """
        Args:
            folder: where partial results of any evaluation into the same report lie; nothing is made here yet.
            key: what decides the scores, as JSON values.
            num_classes: K, the length of every video's scores.
        """
        self._header = json.dumps(key, sort_keys=True)
        self._num_classes = num_classes
        self.folder = folder / hashlib.sha256(self._header.encode()).hexdigest()[:16]

    def load(self, groups: Sequence[range]) -> tuple[int, Shard]:
        """The number of this launch, and what earlier launches found of `groups`, each group once, without those in
        which a video could not be read.

        Raises:
            UserError: the folder cannot be made or read.
        """
        expected = {group.start: group for group in groups}
        found = Shard()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            files = sorted(self.folder.glob("*.jsonl"))
            for file in files:
                for entry in self._entries(file):
                    group = expected.get(entry["videos"][0][0])
                    scored = [video for video, scores, _ in entry["videos"] if scores is not None]
                    if group is not None and scored == list(group):
                        found.extend(self._shard(entry))
                        del expected[group.start]
        except OSError as error:
            raise UserError(f"partial results in {self.folder} cannot be read or written: {error.strerror}") from error
        launches = [int(file.name.partition("-")[0]) for file in files]
        return max(launches, default=-1) + 1, found

    @contextmanager
    def writer(self, launch: int, process_index: int) -> Iterator["PartialWriter"]:
        """A new file for one process of one launch.

        Raises:
            UserError: it cannot be written, or another evaluation is writing it.
        """
        path = self.folder / f"{launch:03d}-{process_index:04d}.jsonl"
        with user_error_if_not_written(path):
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            except FileExistsError:
                raise UserError(f"{path} exists: another evaluation into this folder has just started") from None
        try:
            writer = PartialWriter(path, descriptor)
            writer.write_line(self._header)
            yield writer
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self) -> None:
        """Remove these partial results, once the report is written; those of other evaluations stay and are named."""
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            others = sorted(self.folder.parent.iterdir())
            if not others:
                self.folder.parent.rmdir()
        except OSError:
            return
        for other in others:
            _log.info("%s holds partial results of another checkpoint or configuration; they were not used", other)

    def _entries(self, file: Path) -> Iterator[dict[str, Any]]:
        """The lines of one file that are whole and of this evaluation."""
        lines = file.read_bytes().split(b"\n")
        header, damaged = _payload(lines[0]), 0
        if header != self._header:
            _log.warning("%s is left out: it does not say that it belongs to this evaluation", file)
            return
        for line in filter(None, lines[1:]):
            payload = _payload(line)
            if payload is None:
                damaged += 1
            else:
                yield json.loads(payload)
        if damaged:
            _log.warning("%s: %d damaged lines; their videos are scored again", file, damaged)

    def _shard(self, entry: Mapping[str, Any]) -> Shard:
        shard = Shard()
        for index, scores, _ in entry["videos"]:
            row = np.frombuffer(b64decode(scores, validate=True), "<f8").astype(np.float64)
            assert len(row) == self._num_classes
            shard.indices.append(index)
            shard.scores.append(row)
        return shard


class PartialWriter:
    """Appends groups to one file."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._synced_s = time.monotonic()

    def add(self, group: range, shard: Shard) -> None:
        """Write down all videos of a group; a killed process loses nothing that this has returned from.

        Raises:
            UserError: it cannot be written.
        """
        scores = dict(zip(shard.indices, shard.scores, strict=True))
        reasons = dict(shard.failures)
        videos: list[tuple[int, str | None, str | None]] = []
        for index in group:
            row = scores.get(index)
            encoded = None if row is None else b64encode(row.astype("<f8").tobytes()).decode()
            videos.append((index, encoded, reasons.get(index)))
        self.write_line(json.dumps({"videos": videos}))

    def write_line(self, payload: str) -> None:
        """One line with its checksum, written at once, and now and then flushed to the disk."""
        line = f"{zlib.crc32(payload.encode()):08x} {payload}\n".encode()
        with user_error_if_not_written(self._path):
            while line:
                line = line[os.write(self._descriptor, line) :]
            if time.monotonic() - self._synced_s >= SYNC_EVERY_S:
                os.fsync(self._descriptor)
                self._synced_s = time.monotonic()


def _payload(line: bytes) -> str | None:
    """What stands behind the checksum, if that is right."""
    checksum, _, payload = line.partition(b" ")
    try:
        right = int.from_bytes(binascii.unhexlify(checksum), "big") == zlib.crc32(payload)
        return payload.decode() if right and payload else None
    except ValueError:
        return None
