"""Large images: probabilities from overlapping windows that are blended, and enlargement in strips.

Neither function holds an image's probabilities at full size: for 21 classes and 6000 x 4000 pixels, 2 GB.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

OVERLAP = 0.25  # minimum fraction of a window's side that it shares with the next
STRIP = 2**24  # maximum number of values in a strip of `enlarged`, except a strip of one row


def in_windows(look: Callable[[Tensor], Tensor], image: Tensor, window: int) -> Iterator[Tensor]:
    """Run a network on an image in windows, and blend the results.

    Windows are evenly spaced. Where they overlap, the weight of each falls towards its edge, because the
    network has no context beyond the edge; the weights of a pixel have sum 1.

    Args:
        look: the network, (3, h, w) to (C, h, w).
        image: (3, H, W).
        window: maximum number of rows and columns of a window.

    Returns:
        Bands (C, rows, W) from top to bottom, H rows in total.
    """
    tops, row_weights = _spread(image.shape[1], window)
    lefts, column_weights = _spread(image.shape[2], window)
    held: Tensor | None = None  # rows that the next windows add to
    for i, (top, down) in enumerate(zip(tops, row_weights, strict=True)):
        total: Tensor | None = None
        for left, across in zip(lefts, column_weights, strict=True):
            said = look(image[:, top : top + len(down), left : left + len(across)])
            if total is None:
                total = said.new_zeros(len(said), len(down), image.shape[2])
            weights = (down[:, None] * across).to(said.device)
            total[..., left : left + len(across)] += said.mul_(weights)
        assert total is not None
        if held is not None:
            total[:, : held.shape[1]] += held
        done = tops[i + 1] - top if i + 1 < len(tops) else len(down)
        yield total[:, :done]
        held = total[:, done:].clone()  # a view would keep the finished rows in memory


def _spread(length: int, window: int) -> tuple[list[int], list[Tensor]]:
    """Return where windows begin along a side of `length` pixels, and each window's (w,) weights."""
    side = min(window, length)
    step = max(1, side - round(OVERLAP * side))
    count = 1 + -(-(length - side) // step)
    starts = [round(i * (length - side) / max(1, count - 1)) for i in range(count)]
    rise = torch.arange(1, side + 1, dtype=torch.float32)
    ramp = torch.minimum(rise, rise.flip(0))
    total = torch.zeros(length)
    for start in starts:
        total[start : start + side] += ramp
    return starts, [ramp / total[start : start + side] for start in starts]


def enlarged(maps: Tensor, height: int, width: int) -> Iterator[Tensor]:
    """Compute `F.interpolate` (bilinear, corners not aligned) strip by strip.

    Args:
        maps: (C, h, w).
        height: rows of the result.
        width: columns of the result.

    Returns:
        Strips (C, rows, width) from top to bottom, `height` rows in total.
    """
    classes, last = len(maps), maps.shape[1] - 1
    place = (torch.arange(height, device=maps.device) + 0.5) * maps.shape[1] / height - 0.5
    place = place.clamp(0, last)
    above = place.long()
    below = (above + 1).clamp(max=last)
    share = (place - above)[:, None]
    most = max(1, STRIP // (classes * width))
    for top in range(0, height, most):
        rows = slice(top, top + most)
        strip = torch.lerp(maps[:, above[rows]], maps[:, below[rows]], share[rows])
        size = (strip.shape[1], width)
        yield F.interpolate(strip[None], size, mode="bilinear", align_corners=False)[0]
