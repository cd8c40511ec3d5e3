"""Resources of the machine that decoding workers need, checked before they start."""

import math
import os
import resource
from contextlib import suppress

from vidtl.errors import UserError

SHARED_MEMORY, OPEN_FILES = "/dev/shm", "/proc/self/fd"

# Descriptors of a worker in the main process, of a batch (one for each tensor), and of a video and everything else.
_PER_WORKER, _PER_BATCH, _OTHERS = 4, 4, 16


def check_resources(num_workers: int, num_batches: int, batch_bytes: int) -> None:
    """Raise a UserError where workers with so many batches on their way would lack memory or file descriptors.

    Numbers are those of one process; all processes of a machine share its memory.
    """
    with suppress(FileNotFoundError):  # not on Linux
        check_shared_memory(num_batches * batch_bytes * int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        present = len(os.listdir(OPEN_FILES))
        check_open_files(present + num_workers * _PER_WORKER + num_batches * _PER_BATCH + _OTHERS)


def check_shared_memory(need: int) -> None:
    """Raise a UserError unless `/dev/shm`, through which workers send batches, has so many bytes left."""
    found = os.statvfs(SHARED_MEMORY)
    size, free = (blocks * found.f_frsize for blocks in (found.f_blocks, found.f_bavail))
    if size and need > free:  # a size of 0 is none at all
        mib = math.ceil(need / 2**20)
        raise UserError(
            f"decoding workers need up to {mib} MiB of shared memory for batches; {SHARED_MEMORY} has {free >> 20} "
            f"of {size >> 20} MiB left; allowed: more (docker run --shm-size={2 * mib}m), fewer data.num_workers, or "
            "smaller batches"
        )


def check_open_files(need: int) -> None:
    """Raise the limit of open files to the allowed one where the present one is too low; UserError if that is, too."""
    limit, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    if need > limit:
        if 0 < allowed < need:
            raise UserError(
                f"decoding workers need up to {need} open files, and the limit is {allowed}; allowed: a higher one "
                f"(ulimit -n {need}), or fewer data.num_workers"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (need if allowed < 0 else allowed, allowed))
