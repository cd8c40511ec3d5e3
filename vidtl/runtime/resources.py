"""Shared memory and open files that decoding workers need."""

import math
import os

from vidtl.errors import UserError

# Descriptors in the main process: of a worker, of a batch (one for each tensor), and of everything else.
_PER_WORKER, _PER_BATCH, _OTHERS = 4, 4, 16


def check_resources(num_workers: int, num_batches: int, batch_bytes: int) -> None:
    """Raise a UserError where `num_workers` workers with so many batches on their way would lack either.

    Numbers are those of one process. The limit of open files is raised where the system allows that.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    if not os.path.isdir("/proc/self/fd"):  # not on Linux
        return
    found = os.statvfs("/dev/shm")
    size, free = (blocks * found.f_frsize for blocks in (found.f_blocks, found.f_bavail))
    need = num_batches * batch_bytes * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if size and need > free:  # a size of 0 is no limit
        mib = math.ceil(need / 2**20)
        left = f"/dev/shm has {free >> 20} of {size >> 20} MiB left"
        allowed = f"more (docker run --shm-size={2 * mib}m), fewer data.num_workers, or smaller batches"
        needs = f"decoding workers need up to {mib} MiB of shared memory for batches"
        raise UserError(f"{needs}; {left}; allowed: {allowed}")
    need = len(os.listdir("/proc/self/fd")) + num_workers * _PER_WORKER + num_batches * _PER_BATCH + _OTHERS
    limit, highest = resource.getrlimit(resource.RLIMIT_NOFILE)
    if need > limit:
        if 0 <= highest < need:
            allowed = f"a higher one (ulimit -n {need}), or fewer data.num_workers"
            needs = f"decoding workers need up to {need} open files, and the limit is {highest}"
            raise UserError(f"{needs}; allowed: {allowed}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (need if highest < 0 else highest, highest))
