"""The class balance that both losses share: the rarer a label in its image, the more it weighs."""

import torch
from torch import Tensor


def balance_weights(counts: Tensor, dtype: torch.dtype) -> Tensor:
    """(n - n_k) / (1 + n), n the sum of `counts` over their last axis: (..., K) whole numbers to (..., K).

    Whole numbers divide to float32 by default, which would cost a float64 loss half its digits.
    """
    counts = counts.to(torch.promote_types(dtype, torch.float32))
    n = counts.sum(dim=-1, keepdim=True)
    return (n - counts) / (1 + n)
