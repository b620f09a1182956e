"""A batch that several processes share: what each must know of the others' parts. Alone, nothing is sent.

Every process takes as many images of the batch as any other, and gradients are averaged over the processes.
So a mean over all images or all pixels is right by itself; one over some of the pixels (those that have a
label) is not, since their number differs: it must be divided by `share`, not by the process's own number.
"""

import torch
from torch import Tensor, distributed


def processes() -> int:
    """How many share the batch."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def total(x: Tensor) -> Tensor:
    """The sum of x over the processes, elementwise; no gradient passes."""
    if processes() == 1:
        return x.detach()
    x = x.detach().clone()
    distributed.all_reduce(x)
    return x


def share(counts: Tensor) -> Tensor:
    """What a sum over this process's part is divided by, so that the processes' mean is the batch's mean.

    Args:
        counts: whole numbers: how many there are in this part.

    Returns:
        How many there are in the whole batch, at least 1, divided by the number of processes.
    """
    whole = total(counts).clamp(min=1)
    return whole if processes() == 1 else whole / processes()


def any_process(true: bool) -> bool:
    """Whether it is true in any of the processes, which all must ask; all get the same answer."""
    return bool(total(torch.tensor(int(true))) > 0)
