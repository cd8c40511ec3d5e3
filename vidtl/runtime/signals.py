"""Signals that stop a run: recorded on arrival, acted on at the end of the step."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Self

from vidtl.runtime.exit import StoppedBySignalError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Termination, Ctrl-C, and the early warning that batch systems send before a time limit."""

SAME_REQUEST_S = 1.0
"""Repetitions within this time count as one request: on Ctrl-C, both the terminal and the launcher send a signal."""


class StopSignals:
    """Context in which a stop signal sets `signum`; a second one, a second or more later, ends the process at once."""

    def __init__(self) -> None:
        self.signum = 0
        """The signal received, 0 for none."""
        self._arrived = False
        self._received_s = 0.0
        self._raise = False
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        self._wakeup_fd, write_fd = os.pipe()
        for descriptor in (self._wakeup_fd, write_fd):
            os.set_blocking(descriptor, False)
        self._previous_fd = signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        self._previous = {number: signal.signal(number, self._receive) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        for descriptor in (self._wakeup_fd, signal.set_wakeup_fd(self._previous_fd)):
            os.close(descriptor)

    def arrived(self) -> bool:
        """Return whether a stop signal has arrived; for other threads.

        `signum` may be set later: the main thread can be in a long call such as a collective.
        """
        with suppress(BlockingIOError):
            self._arrived |= not set(STOP_SIGNALS).isdisjoint(os.read(self._wakeup_fd, 4096))
        return self._arrived

    def _receive(self, signum: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signum and now - self._received_s < SAME_REQUEST_S:
            return
        if self.signum:
            os._exit(128 + signum)
        self.signum, self._received_s = signum, now
        if self._raise:
            self.check(self.signum)

    @staticmethod
    def check(signum: int) -> None:
        """Raise StoppedBySignalError unless `signum` is 0."""
        if signum:
            name = signal.Signals(signum).name
            raise StoppedBySignalError(signum, f"stopped by {name}; the same command resumes from the last checkpoint")

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Raise StoppedBySignalError as soon as a signal arrives; for work that loses nothing, such as evaluation."""
        self.check(self.signum)
        self._raise = True
        try:
            yield
        finally:
            self._raise = False
