"""From maps to class ids: the argmax over [background score, maps] (METHOD: From maps to masks)."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from plda.data.images import VOID

BINS = 256


def seeds(maps: Tensor, ids: Sequence[int], background: float) -> Tensor:
    """The class of each pixel.

    Args:
        maps: (K, h, w) in [0, 1], one map per class that is present.
        ids: the K class ids.
        background: the score that background has everywhere.

    Returns:
        (h, w) uint8 class ids.
    """
    strength, winner = maps.max(dim=0)
    named = torch.tensor(ids, dtype=torch.uint8, device=maps.device)[winner]
    return torch.where(strength > background, named, torch.zeros_like(named))


def pseudo_mask(
    maps: Tensor, ids: Sequence[int], background: float, undecided: float, size: Sequence[int]
) -> Tensor:
    """Seeds at the image's size, VOID where the strongest class and background are too close to call.

    Args:
        maps: (K, h, w) in [0, 1].
        ids: the K class ids; [0] for an image of which it is known that all is background.
        background: the score that background has everywhere.
        undecided: a pixel is VOID where its strongest map is within this distance of `background`.
        size: (H, W) of the image.

    Returns:
        (H, W) uint8 class ids.
    """
    full = full_size(maps, size)
    mask = seeds(full, ids, background)
    if any(ids):
        close = (full.amax(dim=0) - background).abs() < undecided
        mask = mask.masked_fill(close, VOID)
    return mask


def full_size(maps: Tensor, size: Sequence[int]) -> Tensor:
    """(K, h, w) maps at the image's `size` (H, W), bilinear."""
    return F.interpolate(maps[None], tuple(size), mode="bilinear", align_corners=False)[0]


class Strengths:
    """A histogram, over many images, of each pixel's strongest map: what is known without any pixel label."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.float64)

    def add(self, maps: Tensor) -> None:
        """Count one image's (K, h, w) maps in [0, 1]; every image weighs the same."""
        counts = torch.histc(maps.amax(dim=0).cpu(), bins=BINS, min=0, max=1).double()
        self.counts += (counts / counts.sum()).numpy()

    @property
    def flat(self) -> bool:
        """Whether all strengths are alike, as where a network responds to nothing."""
        return bool(np.count_nonzero(self.counts) < 2)

    def otsu(self) -> float:
        """The threshold that best splits the strengths into two groups (Otsu, 1979); above flat ones."""
        if self.flat:
            return float((self.counts.argmax() + 1) / BINS)
        levels = (np.arange(BINS) + 0.5) / BINS
        below = self.counts.cumsum()
        above = below[-1] - below
        sums = (self.counts * levels).cumsum()
        with np.errstate(invalid="ignore", divide="ignore"):
            gap = sums / below - (sums[-1] - sums) / above
            between = below * above * gap**2
        return float((np.nanargmax(between[:-1]) + 1) / BINS)


def strengths(every: Iterable[Tensor]) -> Strengths:
    """The histogram of all maps of a set."""
    histogram = Strengths()
    for maps in every:
        histogram.add(maps)
    return histogram
