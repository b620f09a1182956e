"""Random augmentation of a training image and its mask."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from plda.data.images import VOID
from plda.data.transforms import BEYOND, resize, unit


def augment(
    image: Tensor,
    mask: Tensor | None,
    *,
    crop: int,
    scale: tuple[float, float],
    jitter: float,
    random: torch.Generator,
) -> tuple[Tensor, Tensor | None]:
    """Apply a random size, crop, mirroring and colour jitter. Image and mask get the same geometry.

    Args:
        image: (3, H, W) uint8 RGB.
        mask: (H, W) uint8 class ids, or None.
        crop: side of the output, a square, in pixels.
        scale: range of a random factor; the image is resized to a long side of this factor times `crop`.
        jitter: brightness, contrast and saturation change by a factor from 1 - jitter to 1 + jitter.
        random: source of all random numbers.

    Returns:
        The image, (3, crop, crop) float32 RGB in [0, 1], BEYOND outside the input image; the mask,
        (crop, crop) uint8, VOID outside the input image.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=random))

    height, width = image.shape[-2:]
    factor = crop * uniform(*scale) / max(height, width)
    size = [max(1, round(height * factor)), max(1, round(width * factor))]
    image = resize(image[None], size)[0]
    for change in (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation):
        image = change(image, uniform(1 - jitter, 1 + jitter))
    # corner of the window: anywhere inside a larger image, anywhere around a smaller one
    top, left = (round(uniform(0, side - crop)) for side in size)
    mirrored = uniform(0, 1) < 0.5
    image = _window(unit(image), top, left, crop, beyond=BEYOND)
    if mask is not None:
        mask = TF.resize(mask[None], size, interpolation=TF.InterpolationMode.NEAREST_EXACT)
        mask = _window(mask, top, left, crop, beyond=[VOID])[0]
    if mirrored:
        image, mask = image.flip(-1), None if mask is None else mask.flip(-1)
    return image, mask


def _window(image: Tensor, top: int, left: int, side: int, beyond: Sequence[float]) -> Tensor:
    """Cut the square at (top, left), maybe negative, from (C, H, W); `beyond`, (C,), fills the rest."""
    out = image.new_tensor(beyond)[:, None, None].repeat(1, side, side)
    height, width = image.shape[-2:]
    rows = slice(max(top, 0), min(top + side, height))
    columns = slice(max(left, 0), min(left + side, width))
    out[
        ...,
        rows.start - top : rows.stop - top,
        columns.start - left : columns.stop - left,
    ] = image[..., rows, columns]
    return out
