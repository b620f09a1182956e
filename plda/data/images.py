"""Decoding and encoding of images (upright 8-bit RGB) and masks (8-bit class ids)."""

import colorsys
import io
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from plda.errors import InputError

VOID = 255
"""The id of a pixel without a class: void in true masks, undecided in generated masks."""

MOST_PIXELS = 2**29
"""The largest image that is read: 537 megapixels, 1.6 GB as RGB. Photos of phones have at most 200."""

MOST_BYTES = 2**32  # largest photo file

# without EPS and WMF: Pillow passes them to other programs
FORMATS = (
    "JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000", "DIB", "ICO", "PCX", "PPM", "SGI", "TGA",
)  # fmt: skip

# extensions of photos in a folder. HEIC (phones) is listed so that it gives an error: Pillow cannot read it
ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif",
    ".avif", ".heic", ".heif",
)  # fmt: skip

REDUCING_GAP = 2  # an image is decoded at this many times its final size, at least
CHECKED = 512  # pixels, the long side at which a photo is decoded to check that it is complete

Image.MAX_IMAGE_PIXELS = None  # MOST_PIXELS is the limit
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**26  # editors write long histories

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transpose that turns an image upright, by EXIF orientation."""

_ON_ITS_SIDE = (5, 6, 7, 8)


def read_image(content: bytes, long_side: int | None = None) -> Image.Image:
    """Decode an image file of any format into an upright RGB image.

    EXIF rotation is applied; grey, palette and CMYK images are converted; 16-bit grey is scaled to 8 bit, and
    floats from 0 to 1 are, too; transparent pixels are blended with white. Every pixel is decoded, so a
    truncated file gives an error here. Unreadable metadata is ignored.

    Args:
        content: the file.
        long_side: lower limit of the output's long side in pixels; a larger image may be reduced down to it.
            That limits the memory: a JPEG is then decoded at a half, quarter or eighth of its size.

    Raises:
        InputError: the bytes are not a complete image, or it has more than MOST_PIXELS or an unknown range of
            values.
    """
    with open_image(content) as opened:
        turn = _TURNS.get(_orientation(opened))
        if long_side is not None:
            factor = long_side / max(opened.size)
            width, height = (max(1, int(side * factor)) for side in opened.size)
            opened.draft(None, (width, height))
        opened.load()
        image = _rgb(_reduced(opened, long_side))
        return image if turn is None else image.transpose(turn)


def image_size(content: bytes) -> tuple[int, int]:
    """Return the size (width, height) of an upright image, from its header.

    Raises:
        InputError: as `read_image`, for faults that the header shows.
    """
    with open_image(content) as opened:
        width, height = opened.size
        return (height, width) if _orientation(opened) in _ON_ITS_SIDE else (width, height)


def keep_image(content: bytes, long_side: int | None) -> tuple[bytes, tuple[int, int], tuple[int, int]]:
    """Return an image in the form that a data set keeps: upright RGB, its long side at most `long_side`.

    A file that already has this form is kept byte for byte. Others are encoded again: photos (JPEG) at
    quality 95, other images without loss.

    Returns:
        The file's content, the size (width, height) of the upright input, and the size of the kept image.

    Raises:
        InputError: as `read_image`.
    """
    given = image_size(content)
    with open_image(content) as opened:
        jpeg = opened.format in ("JPEG", "MPO")  # MPO (phones) is a JPEG followed by other images
        plain = (
            opened.mode == "RGB" and not opened.has_transparency_data and _orientation(opened) not in _TURNS
        )
        kept = plain and (jpeg or opened.format == "PNG")
    fits = long_side is None or max(given) <= long_side
    if kept and fits:
        read_image(content, CHECKED)  # check that it is complete
        return content, given, given
    if long_side is None or fits:
        image = read_image(content)
    else:
        factor = long_side / max(given)
        size = (max(1, round(given[0] * factor)), max(1, round(given[1] * factor)))
        image = read_image(content, REDUCING_GAP * long_side).resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if jpeg:
        image.save(buffer, format="JPEG", quality=95)
    else:
        image.save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue(), given, image.size


def encode_image(pixels: np.ndarray) -> bytes:
    """Encode RGB pixels, (H, W, 3) uint8, without loss (PNG)."""
    return _png(Image.fromarray(pixels))


def read_mask(content: bytes) -> np.ndarray:
    """Decode a mask of this project, (H, W) uint8 class ids; for others see `plda.sources.true_masks`.

    Raises:
        InputError: not an image, or not one channel of 8 bits (palette or grey).
    """
    with open_image(content) as image:
        if image.mode not in ("L", "P"):
            raise InputError(f"must hold one 8-bit class id per pixel (grey or palette), got {image.mode}")
        return np.asarray(image)


def encode_mask(ids: np.ndarray) -> bytes:
    """Encode class ids, (H, W) uint8, as a palette PNG, which image viewers show in colour."""
    image = Image.fromarray(ids)
    image.putpalette(PALETTE.tobytes())
    return _png(image)


def enlarge_mask(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (h, w) uint8 class ids to `size` (H, W) by nearest neighbour."""
    return np.array(Image.fromarray(ids).resize(size[::-1], Image.Resampling.NEAREST))


def colour(ids: np.ndarray) -> np.ndarray:
    """Return the palette's colours of class ids: (H, W) uint8 to (H, W, 3) uint8 RGB."""
    return np.asarray(PALETTE[ids])


def read_file(path: Path) -> bytes:
    """Read a file of the user.

    Raises:
        InputError: it is missing, unreadable, larger than MOST_BYTES, or not a regular file (a pipe has no
            end).
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise InputError("must be a regular file")
        if about.st_size > MOST_BYTES:
            raise InputError(f"must have at most {MOST_BYTES / 1e9:.0f} GB, got {about.st_size / 1e9:.0f}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from error


@contextmanager
def open_image(content: bytes) -> Iterator[Image.Image]:
    """Open an image file. Within the context, decoder errors become InputErrors and warnings are hidden.

    Raises:
        InputError: not an image, one that cannot be decoded (also within the context), or one of more than
            MOST_PIXELS.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if not image.width * image.height:
                    raise InputError("has no pixels")
                if image.width * image.height > MOST_PIXELS:
                    most = f"{MOST_PIXELS / 1e6:.0f} megapixels"
                    raise InputError(f"must have at most {most}, got {image.width}x{image.height}")
                yield image
        except InputError:
            raise
        except UnidentifiedImageError as error:
            kinds = ", ".join(sorted(FORMATS))
            raise InputError(f"cannot be decoded: not an image in one of the formats {kinds}") from error
        except Exception as error:  # decoders raise anything: struct.error, SyntaxError, MemoryError
            reason = str(error) or type(error).__name__
            raise InputError(f"cannot be decoded: {reason}") from error


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 if it is missing or cannot be read."""
    if image.format == "TIFF":
        return 1  # Pillow turns a TIFF itself
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a photo with broken metadata but intact pixels must be usable
        return 1
    return found if isinstance(found, int) else 1


def _reduced(image: Image.Image, long_side: int | None) -> Image.Image:
    """Shrink an image by an integer factor, its long side at least `long_side`, if its mode allows that."""
    factor = max(image.size) // long_side if long_side else 1
    return image.reduce(factor) if factor > 1 and image.mode in ("L", "RGB", "RGBA", "CMYK") else image


def _rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB of the same size."""
    if image.mode.startswith("I;16"):
        bits = image.tag_v2.get(258, (16,))[0] if isinstance(image, TiffImagePlugin.TiffImageFile) else 16
        image = Image.fromarray((np.asarray(image) >> max(0, bits - 8)).astype(np.uint8))
    elif image.mode == "F":
        values = np.asarray(image)
        if not (values.min() >= 0 and values.max() <= 1):  # NaN, too
            raise InputError(
                f"is a float image with values from {values.min():g} to {values.max():g}, which must be in "
                "[0, 1]; save it with 8 or 16 bits"
            )
        image = Image.fromarray((values * 255).round().astype(np.uint8))
    elif image.mode == "I":
        raise InputError("is a 32-bit grey image with an unknown range of values; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def _palette() -> np.ndarray:
    """Return 256 RGB colours: background near black, VOID near white, distinct colours for classes.

    The first classes have the Okabe-Ito colours (safe for colour-blind readers), the others golden-angle
    hues.
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
