"""Writing of manifests: results committed every second, and the parts of a job array joined by SQL."""

import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vidtl.data.manifest import FILE_NAME, SCHEMA, SET_UP, Entry, Manifest, damaged_manifest, limit_steps
from vidtl.errors import UserError
from vidtl.runtime.files import inside, lock, replacing
from vidtl.runtime.shard import Shard

COMMIT_EVERY_S = 1.0  # of work, which a killed run can lose
_JOURNAL_END = bytes.fromhex("d9d505f920a163d7")  # of a transaction on several databases (SQLite's file format, 3.2)


@dataclass(frozen=True)
class ManifestFolder:
    """The folder of a manifest, of the parts that become one, and of the results of unfinished runs."""

    path: Path

    @property
    def manifest(self) -> Path:
        """The manifest of all files."""
        return self.path / FILE_NAME

    def written(self, shard: Shard | None) -> Path:
        """Return the file that a finished run writes: the part of its shard, or the manifest."""
        return self.path / f"{shard.name}.sqlite" if shard else self.manifest

    def unfinished(self, shard: Shard | None) -> Path:
        """Return the file of the results of a run that is not finished."""
        return self.path / f"{shard.name if shard else 'manifest'}.unfinished"

    def parts(self) -> dict[Shard, Path]:
        """Return the parts that exist, the latest last."""
        found = {}
        for file in sorted(self.path.glob("part-*-of-*.sqlite"), key=lambda file: (file.stat().st_mtime_ns, file)):
            if match := re.fullmatch(r"part-(\d+)-of-(\d+)\.sqlite", file.name):
                found[Shard(int(match[1]), int(match[2]))] = file
        return found

    def missing_parts(self) -> tuple[list[int], int]:
        """Return the numbers of missing parts, and the number of shards, which is that of the latest part."""
        shards = list(self.parts())
        count = shards[-1].count if shards else 0
        return [number for number in range(1, count + 1) if Shard(number, count) not in shards], count

    def check_parts(self, paths: Sequence[str]) -> None:
        """Raise UserError unless manifest and parts, of the latest array while it lacks some, have all `paths`."""
        missing, count = self.missing_parts()
        sources = [file for shard, file in self.parts().items() if not missing or shard.count == count]
        query = "SELECT path FROM files"
        known = {path for file in _existing([self.manifest, *sources]) for (path,) in Manifest(file).rows(query)}
        absent = [path for path in paths if path not in known]
        if not absent:
            return
        if not count:
            raise UserError(f"{self.path} has no parts to join; --shard i/n writes them")
        fault = f"the parts lack {len(absent)} annotated files, {absent[0]!r} among them"
        if missing:
            fault = f"{len(missing)} of {count} parts are missing: {', '.join(map(str, missing))}"
            fault += f"; run --shard {missing[0]}/{count} and so on"
        raise UserError(f"{self.path}: {fault}; leave --merge out to do their files now")

    def merge(self, paths: Sequence[str] = ()) -> Manifest:
        """Join the parts into the manifest and delete them, unless `check_parts` refuses; repeating changes nothing."""
        self.check_parts(paths)
        parts = [*self.parts().values()]
        manifest = _join([self.manifest, *parts], self.manifest)
        for part in parts:
            part.unlink()
        return manifest


class Results:
    """Results of an unfinished run, committed every second, from which the next run goes on; a context manager."""

    def __init__(self, folder: ManifestFolder, shard: Shard | None) -> None:
        """Open or create the database; UserError if it cannot be written, or another process is writing it."""
        self.file, self._target = inside(folder.unfinished(shard), folder.path), folder.written(shard)
        if shard is None and folder.parts():
            folder.merge()
        self._earlier = [Manifest(file) for file in _existing(dict.fromkeys([self._target, folder.manifest]))]
        self._sources = [self.file] if shard else [folder.manifest, self.file]
        with _writing(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._database = _create(self.file)
            Manifest(self.file).connection()
        self._committed_s = time.monotonic()

    def find(self, path: str) -> Entry | None:
        """Return an entry of this run, or of a finished one if readable then; a new version may read the others."""
        row = self._database.execute("SELECT * FROM files WHERE path = ?", (path,)).fetchone()
        if row:
            return Entry.from_row(row, self.file)
        found = next((entry for manifest in self._earlier if (entry := manifest.find(path))), None)
        return found if found and found.is_readable else None

    def add(self, entry: Entry) -> None:
        """Add or replace an entry."""
        row = entry.to_row()
        with _writing(self.file):
            if not self._database.in_transaction:
                self._database.execute("BEGIN")
            self._database.execute(f"INSERT OR REPLACE INTO files VALUES ({', '.join('?' * len(row))})", row)
        self.commit(COMMIT_EVERY_S)

    def commit(self, every_s: float = 0.0) -> None:
        """Write all entries to the disk, unless it was done less than `every_s` ago."""
        if time.monotonic() - self._committed_s >= every_s:
            with _writing(self.file):
                self._database.commit()
            self._committed_s = time.monotonic()

    def finish(self) -> Manifest:
        """Write the part of the shard, or the manifest with these entries in place of earlier ones."""
        self.commit()
        manifest = _join(self._sources, self._target)
        self.file.unlink()
        return manifest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()


def _join(sources: Iterable[Path], target: Path) -> Manifest:
    """Write the entries of all sources that exist, of several for one path the last; equal entries give equal bytes."""
    with _writing(target), replacing(target) as temporary, closing(_create(temporary)) as database:
        database.execute(SCHEMA.replace("TABLE files", "TEMP TABLE joined"))
        for source in _existing(sources):
            Manifest(source).connection()
            limit_steps(database, source.stat().st_size)
            database.execute("ATTACH ? AS source", (f"{source.absolute().as_uri()}?mode=ro&immutable=1",))
            try:
                database.execute("INSERT OR REPLACE INTO joined SELECT * FROM source.files")
            except sqlite3.DatabaseError as error:
                raise damaged_manifest(source, error) from error
            database.execute("DETACH source")
            database.set_progress_handler(None, 0)
        database.execute("INSERT INTO files SELECT * FROM joined ORDER BY path")
    return Manifest(target)


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    """Turn errors of a data root that is read-only, in use, or damaged into a UserError."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            raise damaged_manifest(file, error) from error
        if isinstance(error, BlockingIOError) or "locked" in str(error):
            raise UserError(f"{file} is in use: another process prepares the same files") from error
        reason = f"could not be written ({getattr(error, 'strerror', None) or error})"
        raise UserError(f"{file} {reason}; allowed: another --output, then also data.manifest of a run") from error


def _existing(files: Iterable[Path]) -> list[Path]:
    """Return the files that exist, without links to other folders."""
    return [file for file in files if file.is_file() and file.resolve().parent == file.parent.resolve()]


def _create(file: Path) -> sqlite3.Connection:
    """Open a database for writing by this process alone, and make it a manifest if it is new."""
    journal = file.with_name(f"{file.name}-journal")
    for each in (file, journal):
        if os.path.lexists(each) and (each.is_symlink() or not each.is_file()):
            raise damaged_manifest(each, "no regular file")
    if journal.exists():
        with journal.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - len(_JOURNAL_END)))
            if stream.read() == _JOURNAL_END:
                raise damaged_manifest(journal, "it names another file, which SQLite would delete")
    with file.open("ab") as stream:
        locks = "" if lock(stream) else "?nolock=1"  # SQLite takes an absent lock for one of another process
    database = sqlite3.connect(file.absolute().as_uri() + locks, uri=True, timeout=0, isolation_level=None)
    limit_steps(database, 0)
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("BEGIN EXCLUSIVE")
    if not database.execute("SELECT 1 FROM sqlite_master").fetchone():
        for statement in SET_UP:
            database.execute(statement)
    database.commit()
    database.set_progress_handler(None, 0)
    return database
