"""Source and target pixels (Du et al., IEEE TIP 2024; docs/method.md, PLDA, step 1).

Inside each image, the most discriminative pixels of a class (a dog's face) are its *source* domain. They are
erased and the network runs again: the pixels that respond now (the dog's body) are its *target* domain. This
is done per image and per tagged class, without gradients:

    n = (m - min - e) / (max - min + e) · y      m = relu(map), 0 where m < min + e; e = 1e-5
    source = n > tau
    erased = x · (1 - union over classes of source)
    target = the same rule on the maps of `erased`
    label  = 0 where source, else 1 where target, else 255
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from plda.models.cam import stretch

SOURCE, TARGET, IGNORED = 0, 1, 255


@torch.no_grad()
def confident(maps: Tensor, tags: Tensor, threshold: float) -> Tensor:
    """Return the pixels where a tagged class responds strongly.

    Args:
        maps: (B, C, h, w) class scores or activation maps.
        tags: (B, C) 0 or 1.
        threshold: tau, applied to maps that are scaled to [0, 1] per image and class.

    Returns:
        (B, C, h, w) bool.
    """
    return stretch(maps) * tags[:, :, None, None] > threshold


@torch.no_grad()
def erase(image: Tensor, source: Tensor, colour: Tensor) -> Tensor:
    """Return a copy of the image without its source pixels.

    Args:
        image: (B, 3, H, W).
        source: (B, C, h, w) bool.
        colour: (3, 1, 1), replaces the erased pixels: the network's mean, which is 0 after normalisation.

    Returns:
        (B, 3, H, W).
    """
    union = source.any(dim=1, keepdim=True).to(image.dtype)
    return torch.where(F.interpolate(union, image.shape[-2:], mode="nearest") > 0, colour, image)


@torch.no_grad()
def domain_labels(source: Tensor, target: Tensor) -> Tensor:
    """Return SOURCE where `source`, else TARGET where `target`, else IGNORED: (B, C, h, w) bool to int64."""
    return torch.where(source, SOURCE, torch.where(target, TARGET, IGNORED))


def balance_weights(counts: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the class balance of both losses: the rarer a label in its image, the larger its weight.

    It is (n - n_k) / (1 + n), n the sum of `counts` over their last axis: (..., K) integers to (..., K).

    By default, torch divides integers to float32, which would halve the precision of a float64 loss.
    """
    counts = counts.to(torch.promote_types(dtype, torch.float32))
    n = counts.sum(dim=-1, keepdim=True)
    return (n - counts) / (1 + n)
