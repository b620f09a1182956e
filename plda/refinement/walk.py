"""A random walk that spreads maps but rarely crosses a boundary.

Ahn et al., CVPR 2019; docs/method.md, From maps to masks.

With the affinities a_pq of `plda.refinement.affinity` for pairs within a radius, b the boundary, x the maps,

    A = a^beta plus the identity,    T = A with each column divided by its sum,    x_n = (x (1 - b)) T^n.

The published code builds T dense, N x N for N pixels, and squares it 8 times for n = 256. Here T is never
built: x T is a sum over offsets of shifted images. T is also not applied n times. It is similar to a
symmetric matrix, its eigenvalues are in [-1, 1], and there a power is a sum of few Chebyshev polynomials T_k,

    t^n = sum_k c_k T_k(t),   c_k = 2^(1-n) binomial(n, (n-k)/2) for even n - k, half of that for k = 0,

because the c_k decrease like a bell curve of width sqrt(n): for n = 256, those beyond the 78th have a sum
below 1e-6 (Sachdeva and Vishnoi, Faster Algorithms via Approximation Theory, 2014, section 3). Each T_k needs
one more product with T: T_{k+1}(t) = 2 t T_k(t) - T_{k-1}(t).

At 94 x 125 pixels, the same sum with a sparse matrix takes 2.4 times as long and 20 times the memory, and
256 products with it 5 times as long; the dense form, at 62 x 84, 450 times (benchmarks/random_walk.py).
"""

import math

import torch
from torch import Tensor

from plda.refinement.affinity import affinities

NEGLIGIBLE = 1e-6  # maximum sum of the omitted coefficients; below float32 rounding


def random_walk(
    maps: Tensor, boundary: Tensor, *, radius: float = 5, beta: float = 10, steps: int = 256
) -> Tensor:
    """Spread maps within boundaries.

    Args:
        maps: (B, K, h, w) float scores, at least 0; only the classes that are present are needed.
        boundary: (B, 1, h, w) in [0, 1], float.
        radius: pixels nearer to each other than this are neighbours.
        beta: exponent of the affinities.
        steps: n, the number of steps of the walk.

    Returns:
        (B, K, h, w), at least 0 except for rounding, at most the maximum of `maps`; arguments unchanged.
    """
    walk = _Walk(boundary, radius, beta)
    start = maps * (1 - boundary)
    coefficients = chebyshev(steps)
    before, now = start, walk.step(start)
    total = coefficients[0] * before
    for k, coefficient in enumerate(coefficients[1:], start=1):
        if k > 1:
            before, now = now, walk.step(now).mul_(2).sub_(before)
        total.add_(now, alpha=coefficient)
    return total


def chebyshev(power: int) -> list[float]:
    """Return the c_k of t^power, without a tail whose sum is below NEGLIGIBLE; `power` at least 1."""
    coefficients = [0.0] * (power + 1)
    for k in range(power % 2, power + 1, 2):
        chosen = math.lgamma(power + 1) - math.lgamma((power - k) / 2 + 1) - math.lgamma((power + k) / 2 + 1)
        coefficients[k] = math.exp(chosen + (1 - power) * math.log(2)) / (2 if k == 0 else 1)
    rest = 0.0
    while rest + coefficients[-1] < NEGLIGIBLE:
        rest += coefficients.pop()
    return coefficients


class _Walk:
    """One step of the walk: T, as shifts of the image."""

    def __init__(self, boundary: Tensor, radius: float, beta: float) -> None:
        self._weights = [(offset, a**beta) for offset, a in affinities(boundary, radius)]
        neighbours = torch.zeros_like(boundary)
        for offset, weight in self._weights:
            offset.first(neighbours).add_(weight)
            offset.second(neighbours).add_(weight)
        self._share = 1 / (1 + neighbours)

    def step(self, x: Tensor) -> Tensor:
        """Return x T: each pixel becomes the weighted mean of itself and its neighbours."""
        total = torch.zeros_like(x)
        for offset, weight in self._weights:
            offset.first(total).addcmul_(weight, offset.second(x))
            offset.second(total).addcmul_(weight, offset.first(x))
        # x last: small weights added one by one to 1 would be rounded away
        return total.add_(x).mul_(self._share)
