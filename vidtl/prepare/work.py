"""Work on every file of a set: in parallel, stopped and continued at any moment, with the same outcome."""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from vidtl.data.manifest import Manifest
from vidtl.data.manifest_entry import Entry
from vidtl.errors import UserError
from vidtl.prepare.children import Children, Lost
from vidtl.prepare.journal import Journal
from vidtl.prepare.shards import ManifestFolder
from vidtl.runtime.exit import StoppedBySignalError
from vidtl.runtime.progress import Progress
from vidtl.runtime.shard import Shard
from vidtl.runtime.signals import StopSignals

Job = TypeVar("Job")


@dataclass(frozen=True, kw_only=True)
class Work(Generic[Job]):
    """What is done to each file. Its outcome is an entry of a manifest."""

    title: str
    names: Sequence[str]
    """Paths of the entries, each once."""
    outcome_or_job: Callable[[str, Entry | None], Entry | Job]
    """For a name and what is known of it: the entry, where there is nothing to do, or the job."""
    run: Callable[[Job], Entry]
    """In a child process."""
    lost: Callable[[Job, Lost], Entry]
    """The entry of a file that hung or crashed its child."""
    limit_s: Callable[[Job], float]
    """How long a job may take."""


def do_work(
    work: Work[Job], folder: ManifestFolder, shard: Shard | None, num_workers: int, progress: Progress
) -> Manifest:
    """Do what is not done yet, and write the manifest, or the shard's part of it.

    The number of workers and interruptions change nothing in what is written.

    Raises:
        StoppedBySignalError: what was done is kept for the next call.
        UserError: the folder cannot be written, or another process is at it.
    """
    with Journal(folder.journal(shard)) as journal:
        earlier = folder.entries(shard)
        # Hung and crashed files get another chance in a new run, but not when an interrupted one goes on.
        known = {name: entry for name, entry in earlier.items() if entry.status not in ("hung", "crashed")}
        known |= _entries_in(journal)
        entries = _do(work, known, journal, num_workers, progress)
        if shard is None:
            entries = earlier | entries
        manifest = folder.write(entries.values(), shard)
        journal.delete()
    return manifest


def _do(
    work: Work[Job], known: dict[str, Entry], journal: Journal, num_workers: int, progress: Progress
) -> dict[str, Entry]:
    found: dict[str, Entry] = {}

    def remaining() -> Iterator[Job]:
        for name in work.names:
            outcome = work.outcome_or_job(name, known.get(name))
            if isinstance(outcome, Entry):
                found[name] = outcome
            else:
                yield outcome

    total, num_broken = len(work.names), 0
    with (
        StopSignals() as signals,
        progress.task(work.title, "files", total) as task,
        Children(work.run, num_workers, work.limit_s) as children,
    ):
        for job, result in children.run(remaining(), lambda: bool(signals.signum)):
            entry = work.lost(job, result) if isinstance(result, Lost) else result
            found[entry.path] = entry
            journal.append(entry.to_json())
            num_broken += entry.status != "ok"
            task.update(len(found), {"broken": str(num_broken)})
        if not signals.signum:
            task.update(len(found), {"broken": str(num_broken)})
    if signals.signum:
        journal.sync()
        name = signal.Signals(signals.signum).name
        message = f"stopped by {name} at {len(found)} of {total} files; the same command goes on from there"
        raise StoppedBySignalError(signals.signum, message)
    return found


def _entries_in(journal: Journal) -> dict[str, Entry]:
    try:
        entries = [Entry.from_json(fields) for fields in journal.entries]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{journal.file} is not the journal of a scan ({error}); delete it") from error
    return {entry.path: entry for entry in entries}
