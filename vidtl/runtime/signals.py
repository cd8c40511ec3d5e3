"""End of a tool: exit codes, and signals that stop a run. Needs no torch, so that tools start with it.

Exit codes of every tool: 0 done; 2 a mistake of the user or a full disk, in one line; 128 + n stopped by signal n with
everything in order (130 for Ctrl-C, 143 for SIGTERM, 138 for SIGUSR1), 141 where nobody read all of the output, as in
`| head`; the tool's choice (4: a video could not be read); 1 with a traceback for anything else.
"""

import atexit
import errno
import io
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import NoReturn, Self

from vidtl.errors import UserError
from vidtl.runtime.files import FULL_DISK, problem_of_disk, say

WARNING_SIGNAL: int = getattr(signal, "SIGUSR1", 0)
"""The early warning that batch systems send before a time limit; 0 on Windows, which has none."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, *filter(None, [WARNING_SIGNAL]))

SAME_REQUEST_S = 1.0
"""Repetitions within this time count as one request: on Ctrl-C, both the terminal and the launcher send a signal."""
FIRST_REPORT_S = 5.0
"""Delay of an error's report in a process whose error may follow from another's."""

_FROM_LIBRARIES = (*FULL_DISK, errno.EMFILE)  # libraries raise errors of their own after these
_REPORTED = (
    *(*_FROM_LIBRARIES, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO),
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.EFBIG),
)

_log = logging.getLogger(__name__)
_interrupted_s = 0.0


class StoppedBySignalError(KeyboardInterrupt):
    """End of a run on request of a signal: state is saved and nothing is half written."""

    def __init__(self, signum: int, message: str = "") -> None:
        super().__init__(message or f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class StopSignals:
    """Context in which a stop signal sets `signum`; a second one, a second or more later, ends the process at once.

    With `warning_stops` false, the early warning of batch systems asks for a checkpoint only.
    """

    def __init__(self, warning_stops: bool = True) -> None:
        self.signum = 0
        """The signal received, 0 for none."""
        self._checkpoint_signum = 0 if warning_stops else WARNING_SIGNAL
        self._checkpoint_asked = False
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
        """Return whether a stop signal has arrived, even if the main thread has not seen it; for other threads."""
        with suppress(BlockingIOError):
            received = set(os.read(self._wakeup_fd, 4096)) - {self._checkpoint_signum}
            self._arrived |= not received.isdisjoint(STOP_SIGNALS)
        return self._arrived

    def take(self) -> int:
        """Return the stop signal received, or -1 once after one that asks for a checkpoint, or 0."""
        asked, self._checkpoint_asked = self._checkpoint_asked, False
        return self.signum or -asked

    def _receive(self, signum: int, _frame: FrameType | None) -> None:
        if signum == self._checkpoint_signum:
            self._checkpoint_asked = True
        elif not self.signum:
            self.signum, self._received_s = signum, time.monotonic()
            if self._raise:
                self.check(signum)
            with suppress(RuntimeError):  # the main thread is writing to stderr
                _log.warning("%s: stopping in order; a second one stops at once", signal.Signals(signum).name)
        elif time.monotonic() - self._received_s >= SAME_REQUEST_S:
            os._exit(128 + signum)

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

    Stop signals raise StoppedBySignalError in the block, and end the process after it, while a tool imports. One of
    several processes waits `FIRST_REPORT_S` before it reports its error, which may follow from another's: the launcher
    ends it meanwhile. The first process reports errors of the user at once.
    """
    global _interrupted_s
    _interrupted_s = 0.0
    for number in STOP_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    sys.excepthook = _report
    for stream in _text_streams():
        stream.reconfigure(errors="backslashreplace")  # for letters that the terminal's encoding lacks
    try:
        try:
            yield
        except UserError as error:
            if not _is_first():
                _let_others_report()
            _end(2, f"error: {error}")
        except SystemExit as chosen:  # by the tool, or by argparse
            _end(int(chosen.code or 0))
        except Exception as error:
            if isinstance(error, OSError) and not error.filename and (lost := _flush(probe="\n")):
                _end(lost)
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                _let_others_report()
            found = _follows_from(error, _FROM_LIBRARIES) or error
            if isinstance(found, OSError) and found.errno in _REPORTED:
                _end(2, f"error: {found.filename or 'a file'}: {problem_of_disk(found)}")
            raise
    except KeyboardInterrupt as stopped:
        _end_stopped(stopped)


def _let_others_report() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # by which the launcher ends the others
    time.sleep(FIRST_REPORT_S)


def _is_first() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def _interrupt(signum: int, _frame: FrameType | None) -> None:
    """Raise StoppedBySignalError; on a second request, end the process at once."""
    global _interrupted_s
    if not _interrupted_s:
        _interrupted_s = time.monotonic()
        raise StoppedBySignalError(signum)
    if time.monotonic() - _interrupted_s >= SAME_REQUEST_S:
        os._exit(128 + signum)


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        _end_stopped(error)
    sys.__excepthook__(kind, error, trace)


def _end_stopped(stopped: KeyboardInterrupt) -> NoReturn:
    global _interrupted_s
    _interrupted_s = _interrupted_s or time.monotonic()  # the launcher repeats the signal while libraries clean up
    stopped = stopped if isinstance(stopped, StoppedBySignalError) else StoppedBySignalError(signal.SIGINT)
    _end(128 + stopped.signum, str(stopped) if _is_first() else "")


def _follows_from(error: BaseException | None, numbers: Collection[int]) -> OSError | None:
    """Find the error with one of these numbers that an error is, or follows from."""
    if error is None or (isinstance(error, OSError) and error.errno in numbers):
        return error
    return _follows_from(error.__context__, numbers)


def _text_streams() -> list[io.TextIOWrapper]:
    return [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]


def _flush(probe: str = "") -> int:
    """Flush both streams and return the exit code of output that is lost, 0 for none: a pipe is closed, a disk full.

    `probe` goes to stdout first, for a stream without a buffer, which forgets its failure.
    """
    code = 0
    for stream in _text_streams():
        try:
            stream.write(probe if stream is sys.stdout else "")
            stream.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # for what is in the buffer
            code = code or (141 if isinstance(error, BrokenPipeError) else 2)
            if code == 2:
                with suppress(OSError):
                    print(f"error: the output could not be written: {error.strerror}", file=sys.stderr, flush=True)
    return code


def _end(code: int, message: str = "") -> NoReturn:
    if message:
        with suppress(OSError):
            say(" ".join(message.splitlines()), file=sys.stderr)
    lost = _flush()
    code = code or lost
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not (distributed.is_available() and distributed.is_initialized()):
        sys.exit(code)
    if code == 0:
        distributed.destroy_process_group()  # NCCL may wait for all processes here, and only now do all of them arrive
    # A normal exit without tearing down the interpreter: a thread of gloo that still holds a tensor would end the
    # process by SIGABRT (pytorch/pytorch#179291).
    atexit._run_exitfuncs()
    os._exit(code)
