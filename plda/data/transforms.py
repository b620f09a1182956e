"""From an image to what a network is given."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

BEYOND = (0.485, 0.456, 0.406)  # colour beyond a photo, RGB: ImageNet's mean
LEAST_SIDE = 32  # pixels, of what a network sees: below that some backbones leave no pixel of a map


def unit(image: Tensor) -> Tensor:
    """(..., 3, H, W) uint8 RGB to float32 in [0, 1], which networks take; their backbones normalise it."""
    return image.float() / 255


def resize(image: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, H, W) float to (B, C, *size), bilinear; anti-aliased where it shrinks."""
    return F.interpolate(image, tuple(size), mode="bilinear", align_corners=False, antialias=True)


def full_precision(x: Tensor) -> torch.autocast:
    """Within, mixed precision is off on the device of `x`."""
    return torch.autocast(x.device.type, enabled=False)
