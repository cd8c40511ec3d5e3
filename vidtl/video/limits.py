"""Limits of one read, kept by the kernel: a process that exceeds one ends, whatever its decoder is doing.

CPU time counts from the last decoded frame: neither a long file, whose frames keep coming, nor a slow disk exceeds it.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

MEMORY_BYTES = 4 << 30
"""Memory of a read beyond that of its process; the largest pictures allowed need about 2 GiB."""

_OUT_OF_MEMORY = 12  # exit code
_cpu_s = 0.0
_frames: Any = None


def wall_s(cpu_s: float) -> float:
    """Return the limit of a whole read's wall time, for one of CPU time without a new frame."""
    return 20 * cpu_s


@contextmanager
def limited(cpu_s: float) -> Iterator[None]:
    """End this process if the block exceeds `cpu_s` seconds without a frame, `wall_s` or the memory. Not on Windows."""
    global _cpu_s
    try:
        import resource
    except ImportError:  # Windows
        yield
        return
    _cpu_s = cpu_s
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with suppress(OSError, ValueError), open("/proc/self/statm") as file:  # Linux only
        limit = int(file.read().split()[0]) * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit if soft < 0 else min(limit, soft), hard))
    signal.setitimer(signal.ITIMER_REAL, wall_s(cpu_s))
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
            os._exit(_OUT_OF_MEMORY)  # another process, with another history, might have had enough
        raise
    finally:
        _cpu_s = 0.0
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def count_frames_in(total: Any) -> None:
    """Add the frames of all later reads of this process to a shared ctypes integer."""
    global _frames
    _frames = total


def frame_decoded() -> None:
    """Restart the CPU time of the present read; does nothing outside of `limited`."""
    if _cpu_s:
        signal.setitimer(signal.ITIMER_PROF, _cpu_s)
        if _frames is not None:
            _frames.value += 1


def signal_name(exit_code: int | None) -> str:
    """Name the signal that ended a process; '' for none. By name, because Windows lacks most of them."""
    return signal.Signals(-exit_code).name if exit_code is not None and exit_code < 0 else ""


def cause_of_death(exit_code: int, cpu_s: float) -> str:
    """Describe the end of a process inside of `limited`; `exit_code` is minus the signal that killed it."""
    causes = {
        "SIGPROF": f"no new frame in {cpu_s:g} s of CPU time",
        "SIGALRM": f"not read in {wall_s(cpu_s):g} s",
        "SIGKILL": "the decoder's process was killed (SIGKILL), most likely for lack of memory",
    }
    if name := signal_name(exit_code):
        return causes.get(name, f"the decoder crashed ({name})")
    if exit_code == _OUT_OF_MEMORY:
        return f"needs more than {MEMORY_BYTES >> 30} GiB of memory"
    return f"the decoder ended its process with code {exit_code}"
