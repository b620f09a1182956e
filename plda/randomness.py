"""Where seeds come from: a pure function of what the random numbers are for."""

import numpy as np


def mixed(*numbers: int) -> int:
    """A 63-bit seed from several whole numbers; different numbers give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
