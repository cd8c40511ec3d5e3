"""End of a tool: exit codes, and signals that stop a run. Needs no torch, so that tools start with it.

Exit codes of every tool: 0 done; 2 a mistake of the user, reported in one line; 128 + n stopped by signal n with
everything in order (130 for Ctrl-C, 143 for SIGTERM, 138 for SIGUSR1); the tool's choice (4: a video could not be
read); 1 with a traceback for anything else.
"""

import atexit
import errno
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn, Self

from vidtl.errors import UserError
from vidtl.runtime.files import say

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Termination, Ctrl-C, and the early warning that batch systems send before a time limit."""

SAME_REQUEST_S = 1.0
"""Repetitions within this time count as one request: on Ctrl-C, both the terminal and the launcher send a signal."""
FIRST_REPORT_S = 5.0
"""Delay of an error's report in a process whose error may follow from another's."""


class StoppedBySignalError(Exception):
    """End of a run on request of a signal: state is saved and nothing is half written."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


class StopSignals:
    """Context in which a stop signal sets `signum`; a second one, a second or more later, ends the process at once."""

    def __init__(self) -> None:
        self.signum = 0
        """The signal received, 0 for none."""
        self._arrived = False
        self._received_s = 0.0
        self._raise = False

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


def run_tool(main: Callable[[], object]) -> NoReturn:
    """Run `main` and end the process with its exit code."""
    with exit_on_error():
        main()
    _end(0)


def ignore_stop_signals() -> None:
    """Leave stop signals, which Ctrl-C and batch systems send to all processes, to the one that started this one."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """End the process where the block raises, with the exit code of the module's docstring.

    With several processes, the first cause is reported once: a failing process waits `FIRST_REPORT_S` before it reports
    and ends, because its error may follow from another's, and then the launcher ends it meanwhile. The first process
    reports errors of the user at once.
    """
    is_first = int(os.environ.get("RANK", "0")) == 0
    try:
        yield
    except UserError as error:
        if not is_first:
            time.sleep(FIRST_REPORT_S)
        _end(2, f"error: {error}")
    except StoppedBySignalError as stopped:
        _end(128 + stopped.signum, str(stopped) if is_first else "")
    except KeyboardInterrupt:
        _end(128 + signal.SIGINT, "interrupted" if is_first else "")
    except SystemExit as chosen:  # by the tool, or by argparse
        _end(int(chosen.code or 0))
    except Exception as error:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            time.sleep(FIRST_REPORT_S)
        if _lacks_files(error):
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            _end(
                2, f"error: too many open files: the limit is {limit}; allowed: a higher one (ulimit -n), fewer workers"
            )
        raise


def _lacks_files(error: BaseException | None) -> bool:
    """Return True for an error that follows from the limit of open files."""
    return error is not None and (getattr(error, "errno", 0) == errno.EMFILE or _lacks_files(error.__context__))


def _end(code: int, message: str = "") -> NoReturn:
    if message:
        say(" ".join(message.splitlines()), file=sys.stderr)
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not (distributed.is_available() and distributed.is_initialized()):
        sys.exit(code)
    if code == 0:
        distributed.destroy_process_group()  # NCCL may wait for all processes here, and only now do all of them arrive
    # A normal exit without tearing down the interpreter: a thread of gloo that still holds a tensor would end the
    # process by SIGABRT (pytorch/pytorch#179291).
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
