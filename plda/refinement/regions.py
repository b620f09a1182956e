"""Refinement by regions: maps are averaged within segments of similar colours.

An image is divided into segments by its colours alone (Felzenszwalb and Huttenlocher, IJCV 2004), coarser
ones at a larger scale. A map m becomes, at pixel p, the mean over the scales s of its means in p's segment,

    r(p) = 1/S sum_s mean of m(q) over the pixels q of the segment of p at scale s.

This fills objects up to their outlines; refinements by neighbours do not (docs/measured/masks.md).
"""

from collections.abc import Sequence

import numpy as np
import torch
from skimage.segmentation import felzenszwalb
from torch import Tensor

from plda.data.transforms import resize, unit
from plda.masks.cams import normalise_maps

STRIDE = 2  # of the segments and of the result; 1 takes five times as long and is not better
SMOOTHING = 0.5  # standard deviation, pixels at half the image's side
LEAST = 5  # minimum number of pixels of a segment


def regions(images: Tensor, maps: Tensor, *, scales: Sequence[float]) -> Tensor:
    """Average class activation maps within segments of similar colour, then divide each by its maximum.

    The division is needed because averaging lowers peaks, most of all of small objects, while the background
    score is the same in all images.

    Args:
        images: (B, 3, H, W) uint8 RGB.
        maps: (B, K, h, w) float in [0, 1], at any size.
        scales: scales of the segments; a larger scale gives coarser segments.

    Returns:
        (B, K, H / 2, W / 2), rounded up, in [0, 1); the arguments are not changed.
    """
    return normalise_maps(average(images, maps, scales=scales))


def average(images: Tensor, maps: Tensor, *, scales: Sequence[float]) -> Tensor:
    """Average maps or probabilities within segments; arguments and result as in `regions`."""
    size = size_of_regions(images)
    colours = resize(unit(images), size).permute(0, 2, 3, 1).cpu().numpy()
    finer = resize(maps.float(), size).cpu().numpy()
    averaged = [
        np.mean([_averaged(own, segments(image, scale)) for scale in scales], axis=0)
        for image, own in zip(colours, finer, strict=True)
    ]
    return torch.from_numpy(np.stack(averaged)).to(maps)


def size_of_regions(images: Tensor) -> list[int]:
    """Return the size (h, w) of the segments of (..., H, W) images, and of the averaged maps."""
    return [-(-side // STRIDE) for side in images.shape[-2:]]


def segments(image: np.ndarray, scale: float) -> np.ndarray:
    """Return the (h, w) segment number of each pixel, from 0, for (h, w, 3) RGB in [0, 1]."""
    numbers: np.ndarray = felzenszwalb(image, scale=scale, sigma=SMOOTHING, min_size=LEAST)
    return numbers


def _averaged(maps: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Average (K, h, w) maps within the segments of `numbers` (h, w); return (K, h, w)."""
    flat = numbers.ravel()
    sums = np.stack([np.bincount(flat, weights=own.ravel()) for own in maps])
    return (sums / np.bincount(flat))[:, numbers]
