"""Seeds, each a pure function of the purpose of its random numbers."""

import numpy as np


def derive_seed(*numbers: int) -> int:
    """Return a 63-bit seed derived from several integers; different integers give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
