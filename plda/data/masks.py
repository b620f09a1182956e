"""True masks as labelling tools write them, read as class ids.

A mask holds one class id a pixel (8-bit grey or palette, or 16-bit grey), or colours that stand for classes:
those of `classes.txt`, or else PASCAL VOC's.
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
    """Read a mask of someone else's.

    Args:
        content: the file.
        size: (width, height) of its image, which must be its own.
        most: the highest class id.
        colours: of the classes, in colour masks; None: VOC's.

    Returns:
        (H, W) uint8: class ids and VOID.

    Raises:
        InputError: the mask is no image, of another size, of a kind that changes ids, or holds an id or
            colour of no class.
    """
    with open_image(content) as image:
        if image.size != size:
            wanted, got = (f"{width}x{height}" for width, height in (size, image.size))
            raise InputError(f"must be as large as its image, {wanted}, is {got}")
        if image.format in LOSSY or image.info.get("compression") == "jpeg":
            raise InputError(
                f"is a {image.format}, which changes class ids when it is saved; save masks as PNG"
            )
        match image.mode:
            case "L" | "P" | "I" | "I;16" | "I;16B" | "I;16L":
                ids = np.asarray(image)
            case "1":
                ids = np.asarray(image).astype(np.uint8) * (1 if most == 1 else VOID)
            case "LA" | "RGB" | "RGBA" | "PA":
                ids = _ids_of(_opaque(image), (colours or VOC_COLOURS)[: most + 1])
            case _:
                raise InputError(f"must hold one class id or colour per pixel, is of mode {image.mode}")
    wrong = np.setdiff1d(ids, [*range(most + 1), VOID])
    if wrong.size:
        seen = ", ".join(map(str, wrong[:5]))
        raise InputError(f"holds id {seen}: ids must be 0 to {most}, or {VOID} for void")
    return ids.astype(np.uint8)


def _opaque(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    if image.mode != "RGB":
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        if (alpha < 255).any():
            raise InputError(
                "has transparent pixels, which no class id stands for; save it without transparency"
            )
    return np.asarray(image.convert("RGB"))


def _ids_of(pixels: np.ndarray, colours: Sequence[Colour]) -> np.ndarray:
    """(H, W, 3) RGB to (H, W) ids: by the classes' colours, or as grey values where all pixels are grey."""
    ids = {int(code): class_id for class_id, code in enumerate(_code(np.array(colours)))}
    ids.setdefault(int(_code(np.array(VOC_VOID))), VOID)
    codes, places = np.unique(_code(pixels.astype(np.int64)), return_inverse=True)
    foreign = [code for code in codes.tolist() if code not in ids]
    if foreign and (pixels == pixels[..., :1]).all():
        return pixels[..., 0]
    if foreign:
        row, column = np.argwhere(places.reshape(pixels.shape[:2]) == codes.tolist().index(foreign[0]))[0]
        raise InputError(
            f"holds the colour #{foreign[0]:06x} (row {row}, column {column}), of no class; the colours are "
            "those that classes.txt gives, or else VOC's"
        )
    return np.array([ids[code] for code in codes.tolist()], np.uint8)[places].reshape(pixels.shape[:2])


def _code(colours: np.ndarray) -> np.ndarray:
    """(..., 3) RGB as whole numbers."""
    codes: np.ndarray = (colours * [1 << 16, 1 << 8, 1]).sum(axis=-1)
    return codes


def _voc_colour(class_id: int) -> Colour:
    """Of PASCAL VOC's palette: the bits of the id, spread over red, green, blue from the highest bit down."""
    red, green, blue = (
        sum(((class_id >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(8)) for channel in range(3)
    )
    return red, green, blue


VOC_COLOURS = tuple(map(_voc_colour, range(VOID)))
VOC_VOID = _voc_colour(VOID)
