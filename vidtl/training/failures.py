"""Unreadable videos in training: counted over all processes by path and by class, and limited."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from accelerate import Accelerator
from accelerate.utils import gather_object

from vidtl.data.batch import Failure
from vidtl.errors import UserError
from vidtl.runtime.files import printable, user_error_if_not_written
from vidtl.runtime.logging import drop_lines_beyond, read_json_lines
from vidtl.training.state import TrainingState

MIN_REQUESTED = 20
"""Number of requested videos from which on the share of unreadable ones is limited."""

_log = logging.getLogger(__name__)


class ClipCounts(Protocol):
    """Counts of requested clips (`vidtl.data.loader.TrainLoader`)."""

    steps_per_epoch: int

    def clips_of_classes(self, steps: int) -> dict[str, int]: ...


class ReplacedClips(NamedTuple):
    """Clips of one class that another video replaced, and all that were requested."""

    replaced: int
    asked: int


class UnreadableVideos:
    """Writer of `unreadable.jsonl` (a line per failed attempt: step, path, reason, classes, attempt) and its counts."""

    def __init__(
        self,
        file: Path,
        accelerator: Accelerator,
        loader: ClipCounts,
        max_share: float,
        repeats: int,
        resumed_step: int,
    ) -> None:
        self.file = file
        self.accelerator = accelerator
        self.loader = loader
        self.max_share = max_share
        self.repeats = repeats
        self._by_path: Counter[str] = Counter()
        self._by_class: Counter[str] = Counter()
        self._reported = 0
        if accelerator.is_main_process:
            drop_lines_beyond(file, resumed_step)
            for entry in read_json_lines(file):
                self._count(str(entry["path"]), entry.get("classes", []), entry.get("attempt", 0))
            self._reported = self._by_class.total()

    def add(self, state: TrainingState, num_clips: int, num_failures: int, failures: Sequence[Failure]) -> None:
        """Count one step: clips and failures of all processes, and this process's failures. All processes call this.

        Raises:
            UserError: the share of unreadable videos exceeds the limit.
        """
        state.videos_asked += num_clips // self.repeats + num_failures
        state.videos_unreadable += num_failures
        gathered: list[Failure] = gather_object(list(failures)) if num_failures else []
        if self.accelerator.is_main_process:
            self._record(state.step, gathered)
            if state.step % self.loader.steps_per_epoch == 0:
                self._report_classes(state.step)
        share = state.videos_unreadable / max(1, state.videos_asked)
        if num_failures and state.videos_asked >= MIN_REQUESTED and share > self.max_share:
            raise UserError(
                f"{state.videos_unreadable} of {state.videos_asked} requested videos could not be read; allowed by "
                f"data.max_unreadable_share: {self.max_share}; see {self.file}; the last one: "
                f"{gathered[-1].path}: {gathered[-1].reason}"
            )

    def _record(self, step: int, failures: Sequence[Failure]) -> None:
        if not failures:
            return
        with user_error_if_not_written(self.file), self.file.open("a", encoding="utf-8") as stream:
            for failure in failures:
                if failure.path not in self._by_path:
                    path, reason = printable(failure.path), printable(failure.reason)
                    names = printable(", ".join(failure.classes) or "no class")
                    _log.warning("video cannot be read and is substituted: %s (%s): %s", path, names, reason)
                self._count(failure.path, failure.classes, failure.attempt)
                line = {"step": step, **failure._asdict()}
                del line["record"]
                stream.write(json.dumps(line) + "\n")  # escapes file names that are not UTF-8

    def _count(self, path: str, classes: Sequence[str], attempt: int) -> None:
        self._by_path[path] += 1
        if attempt == 0:  # failed substitutes do not replace the clip again
            self._by_class.update(dict.fromkeys(classes, self.repeats))

    def _report_classes(self, step: int) -> None:
        """Log the replaced clips of each class, once an epoch, if there are new ones."""
        if self._by_class.total() > self._reported:
            self._reported = self._by_class.total()
            for name, (replaced, asked) in self.by_class(step).items():
                _log.warning("class %s: %d of %d clips replaced so far", printable(name), replaced, asked)

    def by_path(self) -> dict[str, int]:
        """Return the failed attempts of each video, in the main process."""
        return dict(self._by_path)

    def by_class(self, step: int) -> dict[str, ReplacedClips]:
        """Return the replaced clips of each class with any, most first, in the main process."""
        if not self._by_class:
            return {}
        asked = self.loader.clips_of_classes(step)
        return {name: ReplacedClips(count, asked.get(name, 0)) for name, count in self._by_class.most_common()}
