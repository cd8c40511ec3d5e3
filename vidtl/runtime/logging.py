"""Records of a run: `metrics.jsonl`, trackers, messages on stderr, and versions of packages.

`metrics.jsonl` holds one JSON object per line. Lines of training have step (finished optimizer steps), epoch, loss
(mean over the steps since the line before), learning_rate, grad_norm, clips_per_s, data_wait_share, transfer_share,
compute_share, accuracy (likewise) where clips have one label, and nonfinite_steps once a step was skipped; lines of an
evaluation have step, epoch, split, the metrics, and best, the name of the deciding metric, if none before was better.
Non-finite numbers are null.
"""

import importlib.util
import json
import logging
import math
import os
import platform
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from vidtl.errors import UserError, install_extra
from vidtl.runtime.files import problem_of_disk, say, user_error_if_not_written, whole_file

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

_log = logging.getLogger(__name__)


class _StderrHandler(logging.Handler):
    """Messages above progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        level = f"{record.levelname}: " if record.levelno > logging.INFO else ""
        with tqdm.external_write_mode(file=sys.stderr):
            say(level + self.format(record), file=sys.stderr)


def configure_logging(is_main_process: bool) -> None:
    """Send vidtl's messages to stderr; processes other than the main one report errors only. For tools."""
    logger = logging.getLogger("vidtl")
    logger.handlers = [_StderrHandler()]
    logger.propagate = False
    logger.setLevel(logging.INFO if is_main_process else logging.ERROR)


class MetricsLog:
    """Writer of `metrics.jsonl` and the trackers, on the main process only."""

    def __init__(self, file: Path, trackers: "Sequence[GeneralTracker]", resumed_step: int) -> None:
        """Drop the lines beyond `resumed_step`, of an earlier attempt; UserError where the file cannot be written."""
        drop_lines_beyond(file, resumed_step)
        with user_error_if_not_written(file):
            self._lines = file.open("a", encoding="utf-8")
        self._file = file
        self._trackers = trackers

    def write(self, step: int, epoch: float, numbers: Mapping[str, float], words: Mapping[str, str] = {}) -> None:
        """Write the line of a training step, or of an evaluation (`words`); UserError where it cannot be written."""
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        line = {"step": step, "epoch": epoch, **words, **finite}
        with user_error_if_not_written(self._file):
            self._lines.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            self._lines.flush()
            os.fsync(self._lines.fileno())
        tagged = {f"{words.get('split', 'training')}/{name}": value for name, value in numbers.items()}
        with user_error_if_not_written(self._file.with_name("tensorboard")):
            for tracker in self._trackers:
                tracker.log(tagged, step=step)

    def show(self, name: str, picture_HWC: Any, step: int) -> None:
        """Show a uint8 picture in the trackers."""
        for tracker in self._trackers:
            layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({name: picture_HWC[None]}, step=step, **layout)

    def close(self) -> None:
        """Close all; `metrics.jsonl` has each line already."""
        with suppress(OSError):  # text remains after an error, which is reported
            self._lines.close()
        for tracker in self._trackers:
            try:
                tracker.finish()
            except OSError as error:
                _log.warning("the last records of trackers may be lost: %s", problem_of_disk(error))


def read_json_lines(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of `metrics.jsonl` or the like, without torn ones that a killed run left."""
    if not file.exists():
        return
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            yield entry


def drop_lines_beyond(file: Path, step: int) -> None:
    """Keep the lines up to `step` and replace the file atomically; UserError where it cannot be written."""
    if not file.exists():
        return
    kept = [json.dumps(entry) + "\n" for entry in read_json_lines(file) if entry["step"] <= step]
    with whole_file(file) as stream:
        stream.writelines(kept)


def check_trackers(names: Sequence[str]) -> None:
    """Raise UserError, at the start of a run, for a tracker whose package is not installed."""
    if "wandb" in names and importlib.util.find_spec("wandb") is None:
        raise UserError(f"training.trackers has 'wandb', which is not installed; try: {install_extra('wandb')}")


def start_trackers(
    names: Sequence[str], output_dir: Path, settings: dict[str, Any], resumed_step: int
) -> "list[GeneralTracker]":
    """Start the trackers of a run (`training.trackers`), on the main process; a resumed run continues its records.

    Both write below `output_dir`; W&B also to its server, unless WANDB_MODE is offline. TensorBoard drops records
    beyond `resumed_step`; W&B keeps them and ignores repetitions. UserError where W&B cannot be started (no login).
    """
    from accelerate.tracking import TensorBoardTracker

    trackers: list[GeneralTracker] = []
    if "tensorboard" in names:
        trackers.append(TensorBoardTracker("tensorboard", output_dir, purge_step=resumed_step + 1))
        threading.excepthook = _print_no_lack_of_disk
        with user_error_if_not_written(output_dir / "tensorboard"):
            trackers[-1].start()
    if "wandb" in names:
        trackers.append(_start_wandb(output_dir, settings))
    return trackers


def _print_no_lack_of_disk(ended: threading.ExceptHookArgs) -> None:
    """Leave errors of files in TensorBoard's thread to the main thread, which raises them, too."""
    if not isinstance(ended.exc_value, OSError):
        threading.__excepthook__(ended)


def _start_wandb(output_dir: Path, settings: dict[str, Any]) -> "GeneralTracker":
    import wandb
    from accelerate.tracking import WandBTracker

    folder = output_dir / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    id_file = folder / "run_id.txt"
    if not id_file.exists():
        id_file.write_text(uuid.uuid4().hex[:12])
    tracker = WandBTracker(
        os.environ.get("WANDB_PROJECT", "vidtl"),
        name=output_dir.resolve().name,
        id=id_file.read_text().strip(),
        resume="allow",
        dir=str(output_dir),
        config=settings,
    )
    try:
        tracker.start()
    except (wandb.Error, OSError) as error:
        problem = f"wandb could not be started: {' '.join(str(error).split())}"
        raise UserError(f"training.trackers: {problem}; try `wandb login`, or WANDB_MODE=offline") from error
    return tracker


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of Python and of the installed ones of `packages`."""
    versions = {"python": platform.python_version()}
    for package in packages:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions
