"""Refinement by regions: where colours are alike, maps are made alike.

An image is cut into segments by its colours alone (Felzenszwalb and Huttenlocher, IJCV 2004), coarser ones at
a larger scale. A map m becomes the mean over the scales s of its means within the segment of each pixel p,

    r(p) = 1/S sum_s mean of m(q) over the pixels q of the segment of p at scale s.

Objects are filled up to their outlines, which no refinement by neighbours does (docs/measured/masks.md).
"""

from collections.abc import Sequence

import numpy as np
import torch
from skimage.segmentation import felzenszwalb
from torch import Tensor

from plda.data.transforms import resize, unit
from plda.masks.cams import normalise_maps

STRIDE = 2  # of the segments and of what comes out; at 1 it takes five times as long, and is no better
SMOOTHING = 0.5  # standard deviation, pixels of half the image's side
LEAST = 5  # pixels of a segment


def regions(images: Tensor, maps: Tensor, *, scales: Sequence[float]) -> Tensor:
    """Average class activation maps within segments of like colour, each then divided by its maximum.

    Averaging lowers peaks, of small objects most of all, and background has the same score in all images.

    Args:
        images: (B, 3, H, W) uint8 RGB.
        maps: (B, K, h, w) float in [0, 1], at any size.
        scales: of the segments: the larger, the coarser.

    Returns:
        (B, K, H / 2, W / 2), rounded up, in [0, 1); no argument is changed.
    """
    return normalise_maps(average(images, maps, scales=scales))


def average(images: Tensor, maps: Tensor, *, scales: Sequence[float]) -> Tensor:
    """Average maps or probabilities within segments of like colour; arguments and result as of `regions`."""
    size = size_of_regions(images)
    colours = resize(unit(images), size).permute(0, 2, 3, 1).cpu().numpy()
    finer = resize(maps.float(), size).cpu().numpy()
    averaged = [
        np.mean([_averaged(own, segments(image, scale)) for scale in scales], axis=0)
        for image, own in zip(colours, finer, strict=True)
    ]
    return torch.from_numpy(np.stack(averaged)).to(maps)


def size_of_regions(images: Tensor) -> list[int]:
    """The size (h, w) of the segments of (..., H, W) images, and of maps averaged within them."""
    return [-(-side // STRIDE) for side in images.shape[-2:]]


def segments(image: np.ndarray, scale: float) -> np.ndarray:
    """(h, w, 3) RGB in [0, 1] to the (h, w) number of each pixel's segment, counted from 0."""
    numbers: np.ndarray = felzenszwalb(image, scale=scale, sigma=SMOOTHING, min_size=LEAST)
    return numbers


def _averaged(maps: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """(K, h, w), each pixel's mean over its segment of `numbers` (h, w)."""
    flat = numbers.ravel()
    sums = np.stack([np.bincount(flat, weights=own.ravel()) for own in maps])
    return (sums / np.bincount(flat))[:, numbers]
