"""Trackers: TensorBoard and Weights & Biases, through Accelerate's own classes for them."""

import importlib.util
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker

from vidtl.errors import UserError


def check_trackers(names: Sequence[str]) -> None:
    """UserError where a tracker's package is not installed: told at the start, not after a queue."""
    if "wandb" in names and importlib.util.find_spec("wandb") is None:
        raise UserError("training.trackers names 'wandb', which is not installed; try: pip install vidtl[wandb]")


def start_trackers(
    names: Sequence[str], output_dir: Path, settings: dict[str, Any], resumed_step: int
) -> list[GeneralTracker]:
    """The trackers of a run, started, in the first process; a resumed run goes on in the same place.

    Args:
        names: `training.trackers`.
        output_dir: both write below it; W&B also to its server, unless WANDB_MODE is offline.
        settings: the resolved configuration, for W&B's table of runs.
        resumed_step: what TensorBoard has beyond this step is dropped. W&B keeps it, and leaves out what comes again.

    Raises:
        UserError: W&B cannot be started (no login, no network).
    """
    return [_START[name](output_dir, settings, resumed_step) for name in dict.fromkeys(names)]


def _start_tensorboard(output_dir: Path, settings: dict[str, Any], resumed_step: int) -> GeneralTracker:
    tracker = TensorBoardTracker("tensorboard", output_dir, purge_step=resumed_step + 1)
    tracker.start()
    return tracker


def _start_wandb(output_dir: Path, settings: dict[str, Any], resumed_step: int) -> GeneralTracker:
    import wandb

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
        reason = " ".join(str(error).split())
        raise UserError(
            f"training.trackers: wandb could not be started: {reason}; try `wandb login`, or WANDB_MODE=offline"
        ) from error
    return tracker


_START = {"tensorboard": _start_tensorboard, "wandb": _start_wandb}
