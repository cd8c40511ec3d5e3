"""Where a run of `tools/prepare.py` keeps what it writes, alone or as one of many jobs that share a set."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vidtl.data.manifest import FILE_NAME, FOLDER, Manifest
from vidtl.data.manifest_entry import Entry
from vidtl.errors import UserError
from vidtl.runtime.shard import Shard


@dataclass(frozen=True)
class ManifestFolder:
    """The folder of a manifest, with the parts and journals that become one."""

    path: Path

    @classmethod
    def of(cls, root: Path, output: Path | None = None) -> Self:
        """The folder given, or the one in the data root."""
        return cls(output or root / FOLDER)

    @property
    def manifest(self) -> Path:
        """The manifest of all files."""
        return self.path / FILE_NAME

    def written(self, shard: Shard | None) -> Path:
        """The manifest that a run writes: its part, or the whole."""
        return self.path / f"{shard.name}.npz" if shard else self.manifest

    def journal(self, shard: Shard | None) -> Path:
        """Results of a run that is not finished."""
        return self.path / f"{shard.name if shard else 'unfinished'}.jsonl"

    def parts(self) -> dict[Shard, Path]:
        """Parts that are there, the latest last."""
        found = {}
        for file in sorted(self.path.glob("part-*-of-*.npz"), key=lambda file: (file.stat().st_mtime_ns, file)):
            match = re.fullmatch(r"part-(\d+)-of-(\d+)\.npz", file.name)
            if match:
                found[Shard(int(match[1]), int(match[2]))] = file
        return found

    def missing_parts(self) -> tuple[list[int], int]:
        """Numbers of the parts that are not there, of how many. The latest part tells how many its array has."""
        shards = list(self.parts())
        count = shards[-1].count if shards else 0
        there = {shard.number for shard in shards if shard.count == count}
        return [number for number in range(1, count + 1) if number not in there], count

    def entries(self, shard: Shard | None) -> dict[str, Entry]:
        """What finished runs found, the latest last; for a shard, only the whole and its own part."""
        return _read([self.manifest, *([self.written(shard)] if shard else self.parts().values())])

    def write(self, entries: Iterable[Entry], shard: Shard | None) -> Manifest:
        """Write the whole manifest, or a shard's part; parts are gone once the whole holds them."""
        manifest = Manifest.from_entries(entries, self.written(shard))
        manifest.save()
        if shard is None:
            for part in self.parts().values():
                part.unlink()
        return manifest

    def joined(self, paths: Sequence[str]) -> dict[str, Entry]:
        """What the manifest and all parts know; writes nothing.

        Raises:
            UserError: some of `paths` are in neither. While the latest array is not whole, only its own parts count,
                so that none of an earlier one stands in for those that are missing.
        """
        missing, count = self.missing_parts()
        latest = [file for shard, file in self.parts().items() if shard.count == count]
        entries = self.entries(None)
        known = _read([self.manifest, *latest]) if missing else entries
        absent = [path for path in paths if path not in known]
        if not absent:
            return entries
        if not count:
            raise UserError(f"{self.path} has no parts to join; --shard i/n writes them")
        if missing:
            raise UserError(
                f"{self.path}: {len(missing)} of {count} parts are missing: {', '.join(map(str, missing))}; "
                f"run --shard {missing[0]}/{count} and so on, or leave --merge out to do their files now"
            )
        raise UserError(
            f"{self.path}: the parts lack {len(absent)} annotated files, {absent[0]!r} among them; "
            "leave --merge out to do them now"
        )

    def merge(self, paths: Sequence[str]) -> Manifest:
        """Join the parts into the manifest, unless `joined` refuses; once more changes nothing."""
        return self.write(self.joined(paths).values(), None)


def _read(files: Iterable[Path]) -> dict[str, Entry]:
    """The entries of those files that are there; what is in several is that of the last."""
    return {entry.path: entry for file in files if file.is_file() for entry in Manifest.load(file)}
