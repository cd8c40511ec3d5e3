"""Videos that could not be read in training: counted over all processes by path and by class, bounded."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from accelerate import Accelerator
from accelerate.utils import gather_object

from vidtl.config import ExperimentConfig
from vidtl.data.batch import Failure
from vidtl.errors import UserError
from vidtl.runtime.escape import printable
from vidtl.runtime.files import user_error_if_not_written
from vidtl.runtime.logging import drop_lines_beyond, read_json_lines
from vidtl.training.state import TrainingState

MIN_ASKED = 20
"""Before so many videos were asked for, no share is judged."""

_log = logging.getLogger(__name__)


class ClipCounts(Protocol):
    """What the loader knows of the clips that it was asked for (`vidtl.data.loader.TrainLoader`)."""

    steps_per_epoch: int

    def clips_of_classes(self, steps: int) -> dict[str, int]: ...


class ReplacedClips(NamedTuple):
    """Of one class: clips of its videos that another video stood in for, and all that were asked for."""

    replaced: int
    asked: int


class UnreadableVideos:
    """The list `unreadable.jsonl` (step, path, reason, classes, attempt; one line per failed attempt), the bound on its
    length, and the counts that follow from it."""

    def __init__(
        self, file: Path, config: ExperimentConfig, accelerator: Accelerator, loader: ClipCounts, resumed_step: int
    ) -> None:
        self.file = file
        self.max_share = config.data.max_unreadable_share
        self.repeats = config.augmentation.repeats
        self.accelerator = accelerator
        self.loader = loader
        self._by_path: Counter[str] = Counter()
        self._by_class: Counter[str] = Counter()
        self._told = 0
        if accelerator.is_main_process:
            drop_lines_beyond(file, resumed_step)
            for entry in read_json_lines(file):
                self._count(str(entry["path"]), entry.get("classes", []), entry.get("attempt", 0))
            self._told = self._by_class.total()

    def add(self, state: TrainingState, num_clips: int, num_failures: int, failures: Sequence[Failure]) -> None:
        """Count one step: clips and failures of all processes, and this process's own failures. All processes call
        this.

        Raises:
            UserError: too large a share of the videos asked for could not be read.
        """
        state.videos_asked += num_clips // self.repeats + num_failures
        state.videos_unreadable += num_failures
        gathered: list[Failure] = gather_object(list(failures)) if num_failures else []
        if self.accelerator.is_main_process:
            self._record(state.step, gathered)
            if state.step % self.loader.steps_per_epoch == 0:
                self._tell(state.step)
        if num_failures == 0:
            return
        share = state.videos_unreadable / state.videos_asked
        if state.videos_asked >= MIN_ASKED and share > self.max_share:
            last = f"{gathered[-1].path}: {gathered[-1].reason}"
            raise UserError(
                f"{state.videos_unreadable} of {state.videos_asked} videos asked for could not be read, more than the "
                f"share data.max_unreadable_share allows ({self.max_share}); {self.file} lists them; "
                f"the last one: {last}"
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
                stream.write(json.dumps(line) + "\n")  # escapes: names on a disk need not be UTF-8

    def _count(self, path: str, classes: Sequence[str], attempt: int) -> None:
        self._by_path[path] += 1
        if attempt == 0:  # the substitutes of a clip replace it once, however many of them fail
            self._by_class.update(dict.fromkeys(classes, self.repeats))

    def _tell(self, step: int) -> None:
        """Once an epoch, where there is news: how many clips of each class were replaced since the run began."""
        if self._by_class.total() > self._told:
            self._told = self._by_class.total()
            for name, (replaced, asked) in self.by_class(step).items():
                _log.warning("class %s: %d of %d clips replaced so far", printable(name), replaced, asked)

    def by_path(self) -> dict[str, int]:
        """Failed attempts of each video, in the first process."""
        return dict(self._by_path)

    def by_class(self, step: int) -> dict[str, ReplacedClips]:
        """Replaced clips of each class with any, most first, after so many steps; in the first process."""
        if not self._by_class:
            return {}
        asked = self.loader.clips_of_classes(step)
        return {name: ReplacedClips(count, asked.get(name, 0)) for name, count in self._by_class.most_common()}
