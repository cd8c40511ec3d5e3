"""Signals that ask a run to stop: noted at once, obeyed at the end of the step."""

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
"""A signal repeated within this time is the same request: on Ctrl-C both the terminal and the launcher send one."""


class StopSignals:
    """While entered, a stop signal sets `signum`; a second one, a second or more later, ends the process at once."""

    def __init__(self) -> None:
        self.signum = 0
        """The signal received, 0 for none."""
        self._arrived = False
        self._received_s = 0.0
        self._raise = False
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        self._numbers, noted = os.pipe()
        for end in (self._numbers, noted):
            os.set_blocking(end, False)
        self._previous_wakeup = signal.set_wakeup_fd(noted, warn_on_full_buffer=False)
        self._previous = {number: signal.signal(number, self._receive) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        for end in (self._numbers, signal.set_wakeup_fd(self._previous_wakeup)):
            os.close(end)

    def arrived(self) -> bool:
        """For other threads: whether a stop signal has come, though the main thread may be in a long call (an exchange
        with other processes) and set `signum` only after it."""
        with suppress(BlockingIOError):
            self._arrived |= not set(STOP_SIGNALS).isdisjoint(os.read(self._numbers, 4096))
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
            raise StoppedBySignalError(signum, f"stopped by {name}; the same command goes on from the last checkpoint")

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Inside, a signal raises StoppedBySignalError where it arrives: for work that nothing is lost of."""
        self.check(self.signum)
        self._raise = True
        try:
            yield
        finally:
            self._raise = False
