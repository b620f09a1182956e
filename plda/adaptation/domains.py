"""Which pixels are source, which are target (Du et al., TIP 2024; METHOD: PLDA, step 1).

Inside each image, the pixels that tell a class (a dog's face) are its *source* domain. Erase them, look
again, and what now responds (the dog's body) is its *target* domain. All of it is per image and per class
that is tagged, and nothing here carries a gradient:

    n = (m - min - e) / (max - min + e) · y      m = relu(map), 0 where m < min + e; e = 1e-5
    source = n > tau
    erased = x · (1 - union over classes of source)
    target = the same of the maps of `erased`
    label  = 0 where source, else 1 where target, else 255
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from plda.models.cam import stretch

SOURCE, TARGET, IGNORED = 0, 1, 255


@torch.no_grad()
def confident(maps: Tensor, tags: Tensor, threshold: float) -> Tensor:
    """The pixels where a tagged class responds strongly.

    Args:
        maps: (B, C, h, w) class scores or activation maps.
        tags: (B, C) 0 or 1.
        threshold: tau, on maps that are stretched to [0, 1] image by image and class by class.

    Returns:
        (B, C, h, w) bool.
    """
    return stretch(maps) * tags[:, :, None, None] > threshold


@torch.no_grad()
def erase(image: Tensor, source: Tensor, colour: Tensor) -> Tensor:
    """A copy of the image without its source pixels.

    Args:
        image: (B, 3, H, W).
        source: (B, C, h, w) bool.
        colour: (3, 1, 1), what they become: the network's mean, which it sees as 0.

    Returns:
        (B, 3, H, W).
    """
    union = source.any(dim=1, keepdim=True).to(image.dtype)
    return torch.where(F.interpolate(union, image.shape[-2:], mode="nearest") > 0, colour, image)


@torch.no_grad()
def domain_labels(source: Tensor, target: Tensor) -> Tensor:
    """SOURCE where `source`, else TARGET where `target`, else IGNORED: (B, C, h, w) bool to int64."""
    return torch.where(source, SOURCE, torch.where(target, TARGET, IGNORED))
