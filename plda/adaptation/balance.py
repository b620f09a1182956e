"""The class balance of both losses: the rarer a label in its image, the larger its weight."""

import torch
from torch import Tensor


def balance_weights(counts: Tensor, dtype: torch.dtype) -> Tensor:
    """Return (n - n_k) / (1 + n), n the sum of `counts` over their last axis: (..., K) integers to (..., K).

    By default, torch divides integers to float32, which would halve the precision of a float64 loss.
    """
    counts = counts.to(torch.promote_types(dtype, torch.float32))
    n = counts.sum(dim=-1, keepdim=True)
    return (n - counts) / (1 + n)
