"""The random changes that training makes to an image and its mask."""

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
    """A random size, crop, mirroring and light, the same for an image and its mask.

    Args:
        image: (3, H, W) uint8 RGB.
        mask: (H, W) uint8 class ids, or None.
        crop: side of the square that comes out.
        scale: the image is resized so that its long side is `crop` times a factor from this range.
        jitter: brightness, contrast and saturation change by a factor from 1 - jitter to 1 + jitter.
        random: where every random number comes from.

    Returns:
        (3, crop, crop) float32 RGB in [0, 1], BEYOND outside the image; (crop, crop) uint8, VOID there.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=random))

    height, width = image.shape[-2:]
    factor = crop * uniform(*scale) / max(height, width)
    size = [max(1, round(height * factor)), max(1, round(width * factor))]
    image = resize(image[None], size)[0]
    for change in (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation):
        image = change(image, uniform(1 - jitter, 1 + jitter))
    # the window's corner: anywhere inside a larger image, anywhere around a smaller one
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
    """The square at (top, left), either of which may be negative, of (C, H, W); (C,) is what lies beyond."""
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
