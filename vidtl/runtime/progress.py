"""Progress for people: a live bar on a terminal, a line now and then elsewhere, nothing on other processes."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from types import MappingProxyType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichBar
from rich.table import Column

LINE_EVERY_S = 15.0
"""Time between two lines where the output is not a terminal."""

NO_FIGURES: Mapping[str, str] = MappingProxyType({})


class Task(Protocol):
    """One piece of work whose length is known."""

    def update(self, done: int, figures: Mapping[str, str] = NO_FIGURES) -> None:
        """Say how many units are done in all, and figures to show beside them, such as {"loss": "2.31"}."""


class Progress(Protocol):
    """Where the loops report; tasks may nest (evaluation inside training)."""

    def task(self, title: str, unit: str, total: int, done: int = 0) -> AbstractContextManager[Task]:
        """A context that yields a Task; `done` of `total` units were done before."""


def make_progress(is_main_process: bool) -> Progress:
    """The progress that suits this process and its stderr."""
    if not is_main_process:
        return SilentProgress()
    return BarProgress() if sys.stderr.isatty() else LineProgress()


class SilentProgress:
    """Says nothing."""

    @contextmanager
    def task(self, title: str, unit: str, total: int, done: int = 0) -> Iterator[Task]:
        yield _SilentTask()


class _SilentTask:
    def update(self, done: int, figures: Mapping[str, str] = NO_FIGURES) -> None: ...


class LineProgress:
    """A plain line at the first update, every `LINE_EVERY_S` seconds, and at the end."""

    @contextmanager
    def task(self, title: str, unit: str, total: int, done: int = 0) -> Iterator[Task]:
        task = _LineTask(title, unit, total, done)
        yield task
        task.finish()


class _LineTask:
    def __init__(self, title: str, unit: str, total: int, done: int) -> None:
        self.title, self.unit, self.total = title, unit, total
        self.first = self.done = self.shown = done
        self.figures: Mapping[str, str] = NO_FIGURES
        self.start_s = time.monotonic()
        self.last_line_s = float("-inf")

    def update(self, done: int, figures: Mapping[str, str] = NO_FIGURES) -> None:
        self.done, self.figures = done, figures
        if time.monotonic() - self.last_line_s >= LINE_EVERY_S:
            self._line()

    def finish(self) -> None:
        if self.shown != self.done:
            self._line()

    def _line(self) -> None:
        self.last_line_s, self.shown = time.monotonic(), self.done
        rate = (self.done - self.first) / max(1e-9, self.last_line_s - self.start_s)
        parts = [f"{self.title} {self.done}/{self.total} {self.unit}", *(f"{k} {v}" for k, v in self.figures.items())]
        parts.append(f"{rate:.3g} {self.unit}/s")
        if self.done - self.first > 1:  # the first unit pays for the start of everything
            parts.append(f"left {timedelta(seconds=round((self.total - self.done) / rate))}")
        print("  ".join(parts), file=sys.stderr, flush=True)


class BarProgress:
    """One live display for all tasks that are under way; messages on stderr appear above it."""

    def __init__(self) -> None:
        self._bar = RichBar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TextColumn("left", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            # On a narrow terminal the figures go on in a second line, and nothing is cut off.
            TextColumn("{task.fields[figures]}", markup=False, table_column=Column(no_wrap=False)),
            console=Console(stderr=True),
            speed_estimate_period=120,
        )

    @contextmanager
    def task(self, title: str, unit: str, total: int, done: int = 0) -> Iterator[Task]:
        number = self._bar.add_task(title, total=total, completed=done, unit=unit, figures="")
        self._bar.start()
        try:
            yield _BarTask(self._bar, number)
        finally:
            if len(self._bar.task_ids) == 1:
                self._bar.stop()
            self._bar.remove_task(number)


class _BarTask:
    def __init__(self, bar: RichBar, number: TaskID) -> None:
        self.bar, self.number = bar, number

    def update(self, done: int, figures: Mapping[str, str] = NO_FIGURES) -> None:
        task = self.bar.tasks[self.bar.task_ids.index(self.number)]
        # Words that belong together stay on one line.
        shown = [f"{name} {value}".replace(" ", "\N{NO-BREAK SPACE}") for name, value in figures.items()]
        if task.speed and not figures:
            shown.append(f"{task.speed:.3g} {task.fields['unit']}/s")
        self.bar.update(self.number, completed=done, figures="  ".join(shown))
