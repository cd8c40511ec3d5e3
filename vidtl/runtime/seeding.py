"""Random numbers derived from where they are used, never from stored or global state.

Every random decision of a run is a pure function of the run's seed and of a few integers that say what it is for
(epoch, sample, optimizer step, process). A resumed run therefore needs no saved generator state, and neither the
number of workers nor the order in which they finish changes anything.
"""

import numpy as np
from numpy.random import Generator, Philox, SeedSequence


def generator(seed: int, *keys: int) -> Generator:
    """A fresh generator that depends on `seed` and `keys` only (all >= 0): `generator(seed, epoch, index)`.

    Philox is counter-based, so streams of neighbouring keys are independent (Salmon et al., "Parallel random numbers:
    as easy as 1, 2, 3", 2011). SeedSequence mixes the integers into its key.
    """
    return Generator(Philox(_sequence(seed, keys)))


def seed_torch(seed: int, *keys: int) -> None:
    """Seed torch's global generators, on the CPU and every GPU, from the same derivation as `generator`.

    Dropout and stochastic depth draw from those generators; seeding them before each forward pass makes what they
    draw a function of the position in the run.
    """
    import torch  # here, because processes that only draw or decode should not wait for torch to load

    torch.manual_seed(int(_sequence(seed, keys).generate_state(1, np.uint64)[0]))


def _sequence(seed: int, keys: tuple[int, ...]) -> SeedSequence:
    # Not SeedSequence([seed, *keys]), which pads with zeros: there (seed, epoch) and (seed, epoch, 0) are the same
    # stream.
    return SeedSequence(seed, spawn_key=keys)
