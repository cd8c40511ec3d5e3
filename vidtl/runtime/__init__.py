"""How a run starts, draws its random numbers, reports its progress and ends."""
