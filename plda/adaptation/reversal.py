"""The strength of the gradient reversal, as a function of the training progress."""

import math


def reversal_strength(progress: float, schedule: str = "rising") -> float:
    """Return lambda at training progress t in [0, 1].

    "rising": 2 / (1 + exp(-10 t)) - 1 (Ganin and Lempitsky, 2015), the published schedule; "constant": 1.
    """
    return 1.0 if schedule == "constant" else 2 / (1 + math.exp(-10 * progress)) - 1
