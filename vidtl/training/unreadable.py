"""Videos that could not be read in training: counted over all processes, listed by path, bounded."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object

from vidtl.data.batch import Failure
from vidtl.errors import UserError
from vidtl.runtime.logging import drop_lines_beyond, read_json_lines
from vidtl.training.state import TrainingState

MIN_ASKED = 20
"""Before so many videos were asked for, no share is judged."""

_log = logging.getLogger(__name__)


class UnreadableVideos:
    """The list `unreadable.jsonl` (step, path, reason; one line per failed attempt) and the bound on its length."""

    def __init__(self, file: Path, max_share: float, accelerator: Accelerator, resumed_step: int) -> None:
        self.file = file
        self.max_share = max_share
        self.accelerator = accelerator
        self._known: Counter[str] = Counter()
        if accelerator.is_main_process:
            drop_lines_beyond(file, resumed_step)
            self._known.update(str(entry["path"]) for entry in read_json_lines(file))

    def add(self, state: TrainingState, num_clips: int, num_failures: int, failures: Sequence[Failure]) -> None:
        """Count one step: clips and failures of all processes, and this process's own failures. All processes call
        this.

        Raises:
            UserError: too large a share of the videos asked for could not be read.
        """
        state.videos_asked += num_clips + num_failures
        state.videos_unreadable += num_failures
        if num_failures == 0:
            return
        gathered: list[Failure] = gather_object(list(failures))
        if self.accelerator.is_main_process:
            self._record(state.step, gathered)
        share = state.videos_unreadable / state.videos_asked
        if state.videos_asked >= MIN_ASKED and share > self.max_share:
            last = f"{gathered[-1].path}: {gathered[-1].reason}"
            raise UserError(
                f"{state.videos_unreadable} of {state.videos_asked} videos asked for could not be read, more than the "
                f"share data.max_unreadable_share allows ({self.max_share}); {self.file} lists them; "
                f"the last one: {last}"
            )

    def _record(self, step: int, failures: Sequence[Failure]) -> None:
        with self.file.open("a", encoding="utf-8") as stream:
            for failure in failures:
                if failure.path not in self._known:
                    _log.warning("video cannot be read and is substituted: %s: %s", failure.path, failure.reason)
                self._known[failure.path] += 1
                line = {"step": step, "path": failure.path, "reason": failure.reason}
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")

    def by_path(self) -> dict[str, int]:
        """Failed attempts of each video, in the first process."""
        return dict(self._known)
