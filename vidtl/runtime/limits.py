"""Limits of the machine, checked before a run meets them."""

import math
import os

from vidtl.errors import UserError

SHARED_MEMORY = "/dev/shm"


def check_shared_memory(num_batches: int, batch_bytes: int) -> None:
    """Raise a UserError where workers of all local processes would fill the memory that they hand batches over in.

    `num_batches` and `batch_bytes` are those of one process. Systems without `/dev/shm`, or without a limit on it, pass.
    """
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:
        return
    need = num_batches * batch_bytes * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    size, free = (blocks * found.f_frsize for blocks in (found.f_blocks, found.f_bavail))
    if size and need > free:
        need, size, free = math.ceil(need / 2**20), size >> 20, free >> 20  # MiB
        raise UserError(
            f"decoding workers need up to {need} MiB of shared memory for their batches; {SHARED_MEMORY} has {size} MiB, "
            f"{free} of them free; allowed: a larger one (docker run --shm-size={2 * need}m), fewer data.num_workers, or "
            "smaller batches"
        )
