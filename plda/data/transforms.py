"""Conversion of images to network inputs."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

BEYOND = (0.485, 0.456, 0.406)  # colour outside a photo, RGB: ImageNet's mean
LEAST_SIDE = 32  # pixels, least input side: below it the feature maps of some backbones are empty


def unit(image: Tensor) -> Tensor:
    """Convert (..., 3, H, W) uint8 RGB to float32 in [0, 1], a network's input; backbones normalise it."""
    return image.float() / 255


def resize(image: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (B, C, H, W) float to (B, C, *size), bilinear; anti-aliased when it shrinks."""
    return F.interpolate(image, tuple(size), mode="bilinear", align_corners=False, antialias=True)


def full_precision(x: Tensor) -> torch.autocast:
    """Return a context in which mixed precision is off on the device of `x`."""
    return torch.autocast(x.device.type, enabled=False)
