"""Sums and means over a batch that several processes share. A single process sends nothing.

Every process takes the same number of images, and gradients are averaged over the processes. So a mean over
all images or all pixels needs no correction. A mean over some of the pixels (the labelled ones) does, because
their number differs between processes: divide by `mean_divisor`, not by the number in this process.
"""

import torch
from torch import Tensor, distributed


def world_size() -> int:
    """Return the number of processes that share the batch."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def all_sum(x: Tensor) -> Tensor:
    """Return the elementwise sum of x over the processes, without gradient."""
    if world_size() == 1:
        return x.detach()
    x = x.detach().clone()
    distributed.all_reduce(x)
    return x


def mean_divisor(counts: Tensor) -> Tensor:
    """Return the divisor of a sum over this process's part that makes the processes' mean the batch mean.

    Args:
        counts: integers, the number of elements in this process's part.

    Returns:
        The number of elements in the whole batch, at least 1, divided by the number of processes.
    """
    whole = all_sum(counts).clamp(min=1)
    return whole if world_size() == 1 else whole / world_size()


def any_process(true: bool) -> bool:
    """Return whether `true` holds in any process (a collective OR): every process must call it."""
    return bool(all_sum(torch.tensor(int(true))) > 0)
