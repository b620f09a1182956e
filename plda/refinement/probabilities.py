"""Class probabilities of a segmentation network, refined by the image's colours.

The last feature map is coarse, one value for 16 x 16 pixels, and so are its outlines. The refinements that
turn maps into pseudo-masks also improve the probabilities (docs/measured/masks.md).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from plda.data.transforms import resize, unit
from plda.models.inference import multi_scale
from plda.refinement.pamr import pamr
from plda.refinement.regions import average, size_of_regions

Chain = Mapping[Any, Mapping[str, Any]]
"""The settings of the steps `pamr` and `regions` by name, in order."""

USUAL: Chain = {"pamr": {"iterations": 10}, "regions": {"scales": [50.0, 150.0, 400.0]}}
"""The values of params.yaml."""


def probabilities(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    size: Sequence[int],
    *,
    scales: Sequence[float],
    flip: bool,
) -> Tensor:
    """Return a network's class probabilities, (B, C, *size): `multi_scale` of the softmax of its scores."""
    return multi_scale(lambda x: network(x).softmax(dim=1), images, size, scales=scales, flip=flip)


def only_tagged(shares: Tensor, ids: Sequence[Sequence[int]]) -> Tensor:
    """Return probabilities of background and the tagged classes only; all others become 0.

    Args:
        shares: (B, C, h, w), background first.
        ids: class ids of each image's tags.

    Returns:
        (B, C, h, w), with sum 1 over the classes.
    """
    allowed = torch.zeros(shares.shape[:2])
    for own, tagged in zip(allowed, ids, strict=True):
        own[[0, *tagged]] = 1.0
    shares = shares * allowed.to(shares)[..., None, None]
    return shares / shares.sum(dim=1, keepdim=True)


def refined_probabilities(
    network: Callable[[Tensor, Sequence[int]], Tensor], images: Tensor, chain: Chain
) -> Tensor:
    """Return a network's probabilities after all steps of a chain.

    Args:
        network: (B, 3, H, W) uint8 RGB, and a size (h, w), to probabilities (B, C, h, w).
        images: (B, 3, H, W) uint8 RGB.
        chain: refinements, which work at half the images' side; empty: the probabilities are not refined.

    Returns:
        (B, C, H, W), with sum 1 over the classes.
    """
    size = images.shape[-2:]
    if not chain:
        return network(images, size)
    half = size_of_regions(images)
    shares = network(images, half)
    for step, settings in chain.items():
        match step:
            case "pamr":
                shares = pamr(resize(unit(images), half).to(shares), shares, **settings)
            case "regions":
                shares = average(images, shares, **settings)
            case _:
                raise ValueError(f"{step}: is not a refinement of probabilities")
    return resize(shares, size)
