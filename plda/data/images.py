"""What an image and a mask are, once read: upright 8-bit RGB, and 8-bit class ids."""

import colorsys
import io
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from plda.errors import InputError

VOID = 255
"""The id of a pixel that has no class: void in true masks, undecided in made ones."""


def read_image(content: bytes) -> Image.Image:
    """Decode an image file of any kind into an upright RGB image.

    EXIF rotation is applied; grey, palette and CMYK images are converted; 16-bit grey is scaled to 8 bit;
    transparent pixels are laid over white. Every pixel is decoded, so a truncated file is noticed here.

    Raises:
        InputError: the bytes are no image, or an incomplete one.
    """
    try:
        opened = Image.open(io.BytesIO(content))
        opened.load()
        image: Image.Image = ImageOps.exif_transpose(opened)
    except UnidentifiedImageError as error:
        raise InputError("cannot be decoded: not an image, or of a kind that Pillow does not read") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot be decoded: {error}") from error
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def keep_image(content: bytes, long_side: int | None) -> tuple[bytes, tuple[int, int], tuple[int, int]]:
    """The form in which a data set keeps an image: upright RGB, its long side at most `long_side`.

    A file that is so already is kept byte for byte; others are encoded anew, photos (JPEG) at quality 95,
    all else without loss.

    Returns:
        The file's content, the upright image's size (width, height) as given, and its size as kept.

    Raises:
        InputError: as `read_image`.
    """
    image = read_image(content)
    given = image.size
    original = Image.open(io.BytesIO(content))
    if long_side is not None and max(given) > long_side:
        factor = long_side / max(given)
        size = (max(1, round(given[0] * factor)), max(1, round(given[1] * factor)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    elif original.mode == "RGB" and original.format in ("JPEG", "PNG") and not _is_turned(original):
        return content, given, given
    buffer = io.BytesIO()
    if original.format == "JPEG":
        image.save(buffer, format="JPEG", quality=95)
    else:
        image.save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue(), given, image.size


def encode_image(pixels: np.ndarray) -> bytes:
    """Encode RGB pixels, (H, W, 3) uint8, without loss (PNG)."""
    return _png(Image.fromarray(pixels))


def read_mask(content: bytes) -> np.ndarray:
    """Decode a mask file into class ids, (H, W) uint8.

    Raises:
        InputError: not an image, or not one channel of 8 bits (palette or grey).
    """
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"cannot be decoded: {error}") from error
    if image.mode not in ("L", "P"):
        raise InputError(f"must hold one 8-bit class id per pixel (grey or palette), is {image.mode}")
    return np.asarray(image)


def encode_mask(ids: np.ndarray) -> bytes:
    """Encode class ids, (H, W) uint8, as a palette PNG that people can open."""
    image = Image.fromarray(ids)
    image.putpalette(PALETTE.tobytes())
    return _png(image)


def enlarge_mask(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) uint8 class ids at `size` (H, W), each pixel the nearest one's."""
    return np.array(Image.fromarray(ids).resize(size[::-1], Image.Resampling.NEAREST))


def colour(ids: np.ndarray) -> np.ndarray:
    """The palette's colours of class ids: (H, W) uint8 to (H, W, 3) uint8 RGB."""
    return np.asarray(PALETTE[ids])


def read_file(path: Path) -> bytes:
    """The bytes of a file of the user's.

    Raises:
        InputError: it is missing or unreadable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from error


def _is_turned(image: Image.Image) -> bool:
    return bool(image.getexif().get(ExifTags.Base.Orientation, 1) != 1)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def _palette() -> np.ndarray:
    """256 RGB colours: background near black, VOID near white, classes easy to tell apart.

    The first classes take the Okabe-Ito colours (safe for colour-blind readers), the rest golden-angle hues.
    """
    okabe_ito = ("e69f00", "56b4e9", "009e73", "f0e442", "0072b2", "d55e00", "cc79a7")
    palette = np.zeros((256, 3), np.uint8)
    for i in range(1, VOID):
        hue = i * 0.618034 % 1
        rgb = colorsys.hsv_to_rgb(hue, (0.55, 0.85)[i % 2], (0.95, 0.75)[i // 2 % 2])
        palette[i] = np.round(np.array(rgb) * 255)
    for i, code in enumerate(okabe_ito, start=1):
        palette[i] = list(bytes.fromhex(code))
    palette[0] = (24, 24, 28)
    palette[VOID] = (240, 240, 240)
    return palette


PALETTE = _palette()
"""(256, 3) uint8 RGB, the colour of each class id."""
