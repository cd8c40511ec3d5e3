"""Random numbers derived from the run's seed and the place of use (epoch, sample, step, process), never from state."""

import numpy as np
from numpy.random import Generator, Philox, SeedSequence


def generator(seed: int, *keys: int) -> Generator:
    """Create a generator from `seed` and `keys` (all >= 0) alone: `generator(seed, epoch, index)`.

    Streams of Philox are independent also for neighboring keys (Salmon et al., "Parallel random numbers: as easy as 1,
    2, 3", 2011).
    """
    return Generator(Philox(_sequence(seed, keys)))


def seed_torch(seed: int, *keys: int) -> None:
    """Seed torch's generators on all devices from the same derivation as `generator`; before each forward pass."""
    import torch  # here, because processes that only draw or decode need not load torch

    torch.manual_seed(int(_sequence(seed, keys).generate_state(1, np.uint64)[0]))


def _sequence(seed: int, keys: tuple[int, ...]) -> SeedSequence:
    # SeedSequence([seed, *keys]) would pad with zeros: (seed, epoch) and (seed, epoch, 0) would share a stream.
    return SeedSequence(seed, spawn_key=keys)
