"""Progress of long loops on stderr: a bar on a terminal, a line every 15 seconds elsewhere."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tqdm import tqdm

from vidtl.runtime.watchdog import heartbeat

LINE_EVERY_S = 15.0

tqdm.monitor_interval = 0  # no thread, because decoding workers are forked


class Task:
    """Progress of one loop of known length."""

    def __init__(self, title: str, unit: str, total: int, done: int, visible: bool) -> None:
        self._meter = {"prefix": title, "unit": f" {unit}", "total": total, "initial": done}
        self._first = self._done = self._printed = done
        self._figures: Mapping[str, str] = {}
        self._start_s, self._printed_s = time.monotonic(), float("-inf")
        self._visible = visible
        is_terminal = visible and sys.stderr.isatty()
        self._bar: tqdm[None] = tqdm(
            desc=title, unit=f" {unit}", total=total, initial=done, disable=not is_terminal,
            leave=False, dynamic_ncols=True, miniters=0, smoothing=0,
        )  # fmt: skip

    def update(self, done: int, figures: Mapping[str, str] = {}) -> None:
        """Set the number of finished units, and figures to show with it such as {"loss": "2.31"}."""
        heartbeat()
        self._done, self._figures = done, figures
        if not self._bar.disable:
            self._bar.set_postfix_str(_joined(figures), refresh=False)
            self._bar.update(done - self._bar.n)
        elif self._visible and time.monotonic() - self._printed_s >= LINE_EVERY_S:
            self._print_line()

    def _print_line(self) -> None:
        self._printed_s, self._printed = time.monotonic(), self._done
        left = "  left {remaining}" if self._done - self._first > 1 else ""  # start-up distorts the first rate
        line = tqdm.format_meter(
            self._done, elapsed=self._printed_s - self._start_s, postfix=_joined(self._figures),
            bar_format="{desc} {n_fmt}/{total_fmt}{unit}{postfix}  {rate_noinv_fmt}" + left, **self._meter,
        )  # fmt: skip
        print(line, file=sys.stderr, flush=True)

    def close(self, complete: bool) -> None:
        """Remove the bar; print a last line after a loop that ended in order."""
        if self._visible and self._bar.disable and complete and self._printed != self._done:
            self._print_line()
        self._bar.close()


def _joined(figures: Mapping[str, str]) -> str:
    return "  ".join(f"{name} {value}" for name, value in figures.items())


@dataclass(frozen=True)
class Progress:
    """Progress display of one process. Tasks may nest, such as an evaluation inside training."""

    visible: bool = True

    @contextmanager
    def task(self, title: str, unit: str, total: int, done: int = 0) -> Iterator[Task]:
        """Show a loop of `total` units, of which `done` are finished."""
        task, complete = Task(title, unit, total, done, self.visible), False
        try:
            yield task
            complete = True
        finally:
            task.close(complete)
