"""Pictures of the page: a photo's media type, thumbnails, and masks that are drawn over photos."""

import io
from collections.abc import Sequence

from PIL import Image

from plda.data.images import PALETTE, VOID, read_image, read_mask

THUMBNAIL = 128  # pixels, long side at most
UNDECIDED = "undecided"


def media_type(photo: bytes) -> str:
    """Return the media type of a photo of a data set, which is a JPEG or a PNG."""
    return "image/jpeg" if photo.startswith(b"\xff\xd8") else "image/png"


def thumbnail(photo: bytes) -> bytes:
    """Return a small JPEG of a photo, its long side at most THUMBNAIL."""
    image = read_image(photo, THUMBNAIL)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=80)
    return buffer.getvalue()


def overlay(mask: bytes) -> bytes:
    """Return a mask as a PNG in the palette's colours, transparent where it is background."""
    image = Image.fromarray(read_mask(mask))
    image.putpalette(PALETTE.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1, transparency=bytes([0, *[VOID] * VOID]))
    return buffer.getvalue()


def colours(classes: Sequence[str]) -> dict[int, tuple[str, str]]:
    """Return the name and the colour (#rrggbb) of each id in masks: classes, and VOID."""
    names = {**dict(enumerate(classes)), VOID: UNDECIDED}
    return {i: (name, f"#{bytes(PALETTE[i]).hex()}") for i, name in names.items()}
