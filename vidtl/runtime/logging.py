"""What a run records about itself: `metrics.jsonl`, trackers, and messages on stderr.

`metrics.jsonl` holds one JSON object per line. Lines of training have step, epoch, loss (mean over the steps since the
line before), learning_rate, grad_norm, clips_per_s, data_wait_share, transfer_share, compute_share and nonfinite_steps
once one was left out; lines of an evaluation have step, epoch, split and the metrics. `step` counts finished optimizer
steps. A number that is not finite is null.
"""

import json
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from vidtl.runtime.files import user_error_if_not_written, whole_file

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)}


class _SafeFormatter(logging.Formatter):
    """Shows control characters instead of sending them to the terminal: paths and class names are strangers' text."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(_CONTROL)


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stderr` is at that moment, so that a live progress bar can put messages above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def configure_logging(is_main_process: bool) -> None:
    """Send vidtl's messages to stderr; processes other than the first report errors only. For tools."""
    handler = _StderrHandler()
    handler.setFormatter(_SafeFormatter("%(levelname)s: %(message)s"))
    logger = logging.getLogger("vidtl")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO if is_main_process else logging.ERROR)


class MetricsLog:
    """Appends to `metrics.jsonl` of one run and tells its trackers; only the first process has one."""

    def __init__(self, file: Path, trackers: "Sequence[GeneralTracker]", resumed_step: int) -> None:
        """Drop what an earlier attempt logged beyond `resumed_step`, so that no step is there twice.

        Raises:
            UserError: it cannot be written.
        """
        drop_lines_beyond(file, resumed_step)
        with user_error_if_not_written(file):
            self._lines = file.open("a", encoding="utf-8")
        self._file = file
        self._trackers = trackers

    def write(self, step: int, epoch: float, numbers: Mapping[str, float], split: str | None = None) -> None:
        """One line, on the disk when this returns: of a training step, or of an evaluation on `split`.

        Raises:
            UserError: it cannot be written.
        """
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        line = {"step": step, "epoch": epoch, **({"split": split} if split else {}), **finite}
        with user_error_if_not_written(self._file):
            self._lines.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            self._lines.flush()
            os.fsync(self._lines.fileno())
        tagged = {f"{split or 'training'}/{name}": value for name, value in numbers.items()}
        for tracker in self._trackers:
            tracker.log(tagged, step=step)

    def close(self) -> None:
        """Flush and close all."""
        with user_error_if_not_written(self._file):  # what an earlier error left to write
            self._lines.close()
        for tracker in self._trackers:
            tracker.finish()


def read_json_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of `metrics.jsonl` or the like; a torn one (the run was killed while writing it) is left out."""
    if not file.exists():
        return
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            yield entry


def drop_lines_beyond(file: Path, step: int) -> None:
    """Keep the lines up to `step`, through a new file that takes the old one's place whole.

    Raises:
        UserError: it cannot be written.
    """
    if not file.exists():
        return
    kept = [json.dumps(entry) + "\n" for entry in read_json_lines(file) if entry["step"] <= step]
    with user_error_if_not_written(file), whole_file(file) as stream:
        stream.writelines(kept)
