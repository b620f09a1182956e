"""Reading true masks from labelling tools as class ids.

A mask has one class id per pixel (8-bit grey or palette, or 16-bit grey), or one colour per class: the
colours of `classes.txt`, or else those of PASCAL VOC.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from plda.data.images import VOID, open_image
from plda.data.source import Colour
from plda.errors import InputError

LOSSY = ("JPEG", "MPO", "WEBP", "AVIF", "JPEG2000")


def read_true_mask(
    content: bytes, size: tuple[int, int], most: int, colours: Sequence[Colour] | None = None
) -> np.ndarray:
    """Read a mask made by another program.

    Args:
        content: the file.
        size: (width, height) of the image, which the mask must have, too.
        most: the highest class id.
        colours: colours of the classes in colour masks; None: those of PASCAL VOC.

    Returns:
        (H, W) uint8: class ids and VOID.

    Raises:
        InputError: the mask is not an image, has another size, has a format that changes ids, or has an id or
            a colour of no class.
    """
    with open_image(content) as image:
        if image.size != size:
            wanted, got = (f"{width}x{height}" for width, height in (size, image.size))
            raise InputError(f"must be as large as its image, {wanted}, got {got}")
        if image.format in LOSSY or image.info.get("compression") == "jpeg":
            raise InputError(f"is a {image.format}, a format that changes class ids; save masks as PNG")
        match image.mode:
            case "L" | "P" | "I" | "I;16" | "I;16B" | "I;16L":
                ids = np.asarray(image)
            case "1":
                ids = np.asarray(image).astype(np.uint8) * (1 if most == 1 else VOID)
            case "LA" | "RGB" | "RGBA" | "PA":
                ids = _ids_of(_opaque(image), (colours or VOC_COLOURS)[: most + 1])
            case _:
                raise InputError(f"must hold one class id or colour per pixel, got mode {image.mode}")
    wrong = np.setdiff1d(ids, [*range(most + 1), VOID])
    if wrong.size:
        seen = ", ".join(map(str, wrong[:5]))
        raise InputError(f"holds id {seen}: ids must be 0 to {most}, or {VOID} for void")
    return ids.astype(np.uint8)


def _opaque(image: Image.Image) -> np.ndarray:
    """Return the pixels, (H, W, 3) uint8 RGB; reject transparent ones."""
    if image.mode != "RGB":
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        if (alpha < 255).any():
            raise InputError("has transparent pixels, which have no class id; save it without transparency")
    return np.asarray(image.convert("RGB"))


def _ids_of(pixels: np.ndarray, colours: Sequence[Colour]) -> np.ndarray:
    """Convert (H, W, 3) RGB to (H, W) ids: by the classes' colours, or as grey values if all are grey."""
    ids = {int(code): class_id for class_id, code in enumerate(_code(np.array(colours)))}
    ids.setdefault(int(_code(np.array(VOC_VOID))), VOID)
    codes, places = np.unique(_code(pixels.astype(np.int64)), return_inverse=True)
    foreign = [code for code in codes.tolist() if code not in ids]
    if foreign and (pixels == pixels[..., :1]).all():
        return pixels[..., 0]
    if foreign:
        row, column = np.argwhere(places.reshape(pixels.shape[:2]) == codes.tolist().index(foreign[0]))[0]
        raise InputError(
            f"holds the colour #{foreign[0]:06x} (row {row}, column {column}), which no class has; use the "
            "colours in classes.txt, or else VOC's"
        )
    return np.array([ids[code] for code in codes.tolist()], np.uint8)[places].reshape(pixels.shape[:2])


def _code(colours: np.ndarray) -> np.ndarray:
    """Convert (..., 3) RGB to integers."""
    codes: np.ndarray = (colours * [1 << 16, 1 << 8, 1]).sum(axis=-1)
    return codes


def _voc_colour(class_id: int) -> Colour:
    """Return a colour of PASCAL VOC's palette: the bits of the id, spread over red, green and blue."""
    red, green, blue = (
        sum(((class_id >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(8)) for channel in range(3)
    )
    return red, green, blue


VOC_COLOURS = tuple(map(_voc_colour, range(VOID)))
VOC_VOID = _voc_colour(VOID)
