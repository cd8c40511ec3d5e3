"""Memory of a process that computes on a CPU."""

import ctypes

# Parameters of mallopt, from malloc.h of glibc.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_GROWTH = 64 << 20


def keep_freed_memory() -> None:
    """Keep what large tensors free for the tensors after them, where the C library can: glibc.

    glibc gives large blocks back to the system when they are freed, and every training step then waits for the system
    to map and clear the same memory again, a good part of a small model's step on a CPU. The process holds on to the
    most that it ever needed, as PyTorch does on a GPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for name, value in {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: _GROWTH}.items():
            mallopt(name, value)
