"""From an image to what a network is given."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

MEAN = (0.485, 0.456, 0.406)  # of ImageNet, in RGB: what torchvision's weights were trained with
DEVIATION = (0.229, 0.224, 0.225)
LEAST_SIDE = 32  # pixels, of what a network sees: below that some backbones leave no pixel of a map


def normalise(image: Tensor) -> Tensor:
    """(..., 3, H, W) uint8 RGB to float32 of about zero mean and unit deviation."""
    mean, deviation = _columns(image)
    return (image.float() / 255).sub_(mean).div_(deviation)


def denormalise(image: Tensor) -> Tensor:
    """(..., 3, H, W) normalised RGB to [0, 1]; the mean colour beyond the photo, where the value is 0."""
    mean, deviation = _columns(image)
    return (image * deviation + mean).clamp(0, 1)


def resize(image: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, H, W) float to (B, C, *size), bilinear; anti-aliased where it shrinks."""
    return F.interpolate(image, tuple(size), mode="bilinear", align_corners=False, antialias=True)


def full_precision(x: Tensor) -> torch.autocast:
    """Within, mixed precision is off on the device of `x`."""
    return torch.autocast(x.device.type, enabled=False)


def _columns(image: Tensor) -> tuple[Tensor, Tensor]:
    """MEAN and DEVIATION, (3, 1, 1) each, on the image's device."""
    mean, deviation = (torch.tensor(v, device=image.device)[:, None, None] for v in (MEAN, DEVIATION))
    return mean, deviation
