"""A photo with its classes drawn over it, and a legend of the classes that occur."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from plda.data.images import PALETTE, colour, enlarge_mask
from plda.use.network import Found

SIDE = 1600  # pixels, largest width and height of the photo in an overlay; the mask has the full size
STRENGTH = 0.5  # opacity of the colours
FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
GROUND, INK = "white", "black"


def draw_overlay(photo: Image.Image, ids: np.ndarray, found: Sequence[Found]) -> Image.Image:
    """Draw classes over a photo; pixels of background, id 0, are not changed.

    Args:
        photo: (H, W) upright RGB; not changed.
        ids: (H, W) uint8 class ids.
        found: the classes that occur.

    Returns:
        RGB, W at most SIDE: the photo, and below it a legend with as many rows as needed.
    """
    small = photo.copy()
    small.thumbnail((SIDE, SIDE))
    ids = enlarge_mask(ids, (small.height, small.width))
    weight = STRENGTH * (ids != 0) + (1 - STRENGTH) * _outlines(ids)
    shade = Image.fromarray(np.uint8(255 * weight))
    legend = _legend(small.width, found)
    whole = Image.new("RGB", (small.width, small.height + legend.height), GROUND)
    whole.paste(Image.composite(Image.fromarray(colour(ids)), small, shade))
    whole.paste(legend, (0, small.height))
    return whole


def _outlines(ids: np.ndarray) -> np.ndarray:
    """Return (H, W) bool, true for object pixels beside a pixel of another class."""
    padded = np.pad(ids, 1, mode="edge")
    beside = [padded[1:-1, :-2], padded[1:-1, 2:], padded[:-2, 1:-1], padded[2:, 1:-1]]
    edge: np.ndarray = (ids != 0) & np.any([ids != other for other in beside], axis=0)
    return edge


def _legend(width: int, found: Sequence[Found]) -> Image.Image:
    """Draw a colour square, the name and the share of each class, in rows of `width` pixels."""
    size = min(28, max(10, width // 30))
    gap = size // 2
    font = ImageFont.truetype(str(FONT), size)
    places = []
    x = y = gap
    for each in found:
        text = f"{each.name} {_percent(each.share)}"
        long = round(font.getlength(text)) + 2 * size + gap
        if x > gap and x + long > width:
            x, y = gap, y + size + gap
        places.append((x, y, text, each.id))
        x += long
    legend = Image.new("RGB", (width, y + size + 2 * gap), GROUND)
    draw = ImageDraw.Draw(legend)
    for x, y, text, class_id in places:
        fill = tuple(PALETTE[class_id].tolist()) if class_id else GROUND  # background is not coloured
        draw.rectangle((x, y, x + size, y + size), fill=fill, outline=INK)
        draw.text((x + size + gap, y + size // 2), text, fill=INK, font=font, anchor="lm")
    return legend


def _percent(share: float) -> str:
    if share < 0.01:
        return "<1 %"
    return ">99 %" if 0.99 < share < 1 else f"{100 * share:.0f} %"
