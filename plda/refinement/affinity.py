"""Affinities of pixel pairs from a boundary map (Ahn et al., CVPR 2019; docs/method.md, From maps to masks).

With b(p) in [0, 1] the confidence that p lies on an object's boundary,

    a_pq = 1 - max of b over the pixels on the path from p to q,

where the path is the pixels of the rectangle spanned by p and q, both included, that are less than 1 away
from the straight line. Each pair occurs once. All pairs with the same q - p are computed together: an offset
(dy, dx), dy >= 0, and one image of affinities. So memory grows with the number of pixels, not its square.
"""

import math
from collections.abc import Iterator
from functools import cache, reduce
from typing import NamedTuple

import torch
from torch import Tensor


class Offset(NamedTuple):
    """q - p of a pair; dy > 0, or dy = 0 and dx > 0."""

    dy: int
    dx: int

    def first(self, x: Tensor) -> Tensor:
        """Return `x` (..., h, w) at the p of every pair inside it: (..., h - dy, w - |dx|), a view."""
        return self.between(x, 0, 0)

    def second(self, x: Tensor) -> Tensor:
        """Return `x` at the q of every pair, like `first`."""
        return self.between(x, self.dy, self.dx)

    def between(self, x: Tensor, y: int, across: int) -> Tensor:
        """Return `x` at p + (y, across), a pixel of the rectangle spanned by p and q, like `first`."""
        height, width = x.shape[-2:]
        left = max(0, -self.dx) + across
        return x[..., y : y + height - self.dy, left : left + width - abs(self.dx)]

    def fits(self, x: Tensor) -> bool:
        """Return whether `x` (..., h, w) is large enough for any such pair."""
        return x.shape[-2] > self.dy and x.shape[-1] > abs(self.dx)


@cache
def offsets(radius: float) -> tuple[Offset, ...]:
    """Return all offsets shorter than `radius` pixels, one of each pair of opposite ones."""
    reach = math.ceil(radius)
    return tuple(
        Offset(dy, dx)
        for dy in range(reach)
        for dx in range(-reach, reach + 1)
        if (dy, dx) > (0, 0) and dy * dy + dx * dx < radius * radius
    )


@cache
def path(offset: Offset) -> tuple[tuple[int, int], ...]:
    """Return the pixels on the path from (0, 0) to `offset`, as (y, x)."""
    dy, dx = offset
    columns = range(min(0, dx), max(0, dx) + 1)
    length = dy * dy + dx * dx
    return tuple((y, x) for y in range(dy + 1) for x in columns if (dy * x - dx * y) ** 2 < length)


def affinities(boundary: Tensor, radius: float) -> Iterator[tuple[Offset, Tensor]]:
    """Compute the affinity of every pair of pixels less than `radius` apart.

    Args:
        boundary: (..., h, w) float in [0, 1].
        radius: in pixels of `boundary`.

    Yields:
        An offset and (..., h - dy, w - |dx|) affinities in [0, 1], see `Offset.first`.
    """
    for offset in offsets(radius):
        if offset.fits(boundary):
            crossed = [offset.between(boundary, y, x) for y, x in path(offset)]
            yield offset, 1 - reduce(torch.maximum, crossed)


def affinities_of(boundary: Tensor, starts: Tensor, offset: Offset) -> Tensor:
    """Compute affinities of some pairs; only the first maximum on each path gets a gradient (cheap).

    Args:
        boundary: (B, h, w) float in [0, 1].
        starts: (P,) int64, indices of each pair's p in the flattened `boundary`; each q must be inside it.
        offset: q - p, the same for all pairs.

    Returns:
        (P,) in [0, 1].
    """
    flat, width = boundary.flatten(), boundary.shape[-1]
    steps = torch.tensor([y * width + x for y, x in path(offset)], device=boundary.device)
    crossed = starts[:, None] + steps  # (P, L)
    strongest = flat.detach()[crossed].argmax(dim=1, keepdim=True)
    return 1 - flat[crossed.gather(1, strongest)[:, 0]]
