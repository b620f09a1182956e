"""From maps to class ids: the argmax over [background score, maps] (docs/method.md, From maps to masks)."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from plda.data.images import VOID

BINS = 256


def seeds(maps: Tensor, ids: Sequence[int], background: float) -> Tensor:
    """Return the class of each pixel.

    Args:
        maps: (K, h, w) in [0, 1], one map per class that is present.
        ids: the K class ids.
        background: background score of every pixel.

    Returns:
        (h, w) uint8 class ids.
    """
    strength, winner = maps.max(dim=0)
    named = torch.tensor(ids, dtype=torch.uint8, device=maps.device)[winner]
    return torch.where(strength > background, named, torch.zeros_like(named))


def pseudo_mask(
    maps: Tensor, ids: Sequence[int], background: float, undecided: float, size: Sequence[int]
) -> Tensor:
    """Return seeds at the image's size, VOID where the strongest class is too close to background.

    Args:
        maps: (K, h, w) in [0, 1].
        ids: the K class ids; [0] for an image that is known to be all background.
        background: background score of every pixel.
        undecided: a pixel is VOID if its strongest map is within this distance of `background`.
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
    """Resize (K, h, w) maps to the image's `size` (H, W), bilinear."""
    return F.interpolate(maps[None], tuple(size), mode="bilinear", align_corners=False)[0]


class Strengths:
    """A histogram of each pixel's strongest map, over many images; it needs no pixel labels."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.float64)

    def add(self, maps: Tensor) -> None:
        """Count one image's (K, h, w) maps in [0, 1]; every image has the same weight."""
        counts = torch.histc(maps.amax(dim=0).cpu(), bins=BINS, min=0, max=1).double()
        self.counts += (counts / counts.sum()).numpy()

    @property
    def flat(self) -> bool:
        """Whether all strengths are equal, as for a network that responds to nothing."""
        return bool(np.count_nonzero(self.counts) < 2)

    def otsu(self) -> float:
        """Return the threshold that best splits the strengths in two (Otsu, 1979); above flat strengths."""
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
    """Return the histogram of all maps of a set."""
    histogram = Strengths()
    for maps in every:
        histogram.add(maps)
    return histogram
