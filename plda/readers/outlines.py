"""Masks painted from outlines: polygons and run lengths, with pycocotools."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from plda.data.images import MOST_PIXELS, VOID
from plda.data.text import plain
from plda.errors import InputError
from plda.readers.fields import checked, number, shown
from plda.readers.found import Mask, Size

Polygon: TypeAlias = list[float]
"""x, y, x, y, ... in pixels, or as fractions of the photo's width and height."""

Runs: TypeAlias = dict[str, Any]
"""Run lengths as pycocotools packs them: `size` (height, width) and `counts`."""

CORNERS = 3  # least number in a polygon


class Shape(NamedTuple):
    """The outline of an object: its class, polygons or run lengths, and whether it is void, as crowds are."""

    label: str
    outline: list[Polygon] | Runs
    void: bool = False


def mask_of(shapes: Iterable[Shape | None], size: Size | None, tags: Iterable[str]) -> Mask | None:
    """Return what paints the mask of a photo.

    Args:
        shapes: the outline of each object; None for an object without one.
        size: width and height of the photo as the labels say; None if polygons are fractions.
        tags: the classes of the photo.

    Returns:
        The mask: where objects overlap the smaller one is in front, and void ones are behind all. None if an
        object or a tag has no outline, because a mask without it would be wrong.
    """
    outlined = []
    for shape in shapes:
        if shape is None:
            return None
        outlined.append(shape._replace(label=plain(shape.label)))
    if not outlined or set(map(plain, tags)) - {shape.label for shape in outlined}:
        return None
    return partial(_paint, outlined, size)


def nothing(_ids: Mapping[str, int], size: Size) -> NDArray[np.uint8]:
    """Return the mask of a photo without objects: zeros."""
    return np.zeros(size[::-1], np.uint8)


def _paint(
    shapes: Sequence[Shape], size: Size | None, ids: Mapping[str, int], photo: Size
) -> NDArray[np.uint8]:
    if size not in (None, photo):
        raise _wrong_size(size, photo)
    scale = photo if size is None else (1, 1)
    packed = [_packed(shape.outline, scale, photo) for shape in shapes]
    back_first = sorted(range(len(shapes)), key=lambda i: (not shapes[i].void, -int(rle.area(packed[i]))))
    pixels = nothing(ids, photo)
    for i in back_first:
        pixels[rle.decode(packed[i]) == 1] = VOID if shapes[i].void else ids.get(shapes[i].label, 0)
    return pixels


def _packed(outline: list[Polygon] | Runs, scale: Size, photo: Size) -> Runs:
    if isinstance(outline, dict):
        if outline["size"] != [*photo[::-1]]:
            raise InputError(
                f"its size must be {_by(outline['size'][::-1])} as in the labels, got {_by(photo)}"
            )
        return outline
    width, height = photo
    far = [-width, -height], [2 * width, 2 * height]  # clipped there: pycocotools needs memory for the length
    polygons = [np.clip(np.reshape(p, (-1, 2)) * scale, *far).ravel().tolist() for p in outline]
    merged: Runs = rle.merge(rle.frPyObjects(polygons, height, width))
    return merged


def _wrong_size(size: Sequence[int] | None, photo: Size) -> InputError:
    return InputError(f"its photo must be {_by(size)} as in the labels, got {_by(photo)}")


def _by(size: Sequence[int] | None) -> str:
    return "x".join(map(str, size or ()))


def polygon(numbers: Any, where: str) -> Polygon:
    """Return a checked polygon.

    Raises:
        InputError: it is not a list of pairs of numbers, or has too few; begins with `where`.
    """
    values = [number(value, where) for value in checked(numbers, list, where)]
    if len(values) < 2 * CORNERS or len(values) % 2:
        raise InputError(f"{where} must have pairs of numbers, at least {CORNERS}, got {len(values)} numbers")
    return values


def runs(counts: Any, size: Any, where: str) -> Runs:
    """Return checked run lengths of COCO, column by column: a list or COCO's compressed string.

    Raises:
        InputError: they are not run lengths of an image of that size; begins with `where`.
    """
    lengths = _lengths(counts, where) if isinstance(counts, str) else checked(counts, list, where)
    sides = [checked(side, int, where) for side in checked(size, list, where)]
    if len(sides) != 2 or min(sides) < 1 or sides[0] * sides[1] > MOST_PIXELS:
        raise InputError(f"{where} size must be the height and width of an image, got {shown(size)}")
    if any(checked(length, int, where) < 0 for length in lengths) or sum(lengths) != sides[0] * sides[1]:
        raise InputError(f"{where} must add up to {sides[0] * sides[1]} pixels, got {sum(lengths)}")
    packed: Runs = rle.frPyObjects({"size": sides, "counts": lengths}, *sides)
    return packed


def box_runs(counts: Any, box: Sequence[int], size: Size, where: str) -> Runs:
    """Return checked run lengths of CVAT as those of the whole photo.

    Args:
        counts: lengths row by row in the box, outside first.
        box: left, top, width and height of the box in pixels.
        size: width and height of the photo.
        where: the file and the field, for messages.

    Raises:
        InputError: they are not run lengths of a box in the photo.
    """
    left, top, width, height = box
    fits = 0 <= left < left + width <= size[0] and 0 <= top < top + height <= size[1]
    if not fits or size[0] * size[1] > MOST_PIXELS:
        raise InputError(f"{where} must be a box inside the photo, {_by(size)}, got {[*box]}")
    if any(count < 0 for count in counts) or sum(counts) != width * height:
        raise InputError(f"{where} must add up to {width * height} pixels, got {sum(counts)}")
    pixels = nothing({}, size)
    inside = np.repeat((np.arange(len(counts)) % 2).astype(np.uint8), counts)
    pixels[top : top + height, left : left + width] = inside.reshape(height, width)
    packed: Runs = rle.encode(np.asfortranarray(pixels))
    return packed


def _lengths(text: str, where: str) -> list[int]:
    """Return the run lengths in COCO's string: 5 bits a letter, from the third on the change from two before.

    pycocotools reads it, too, but returns unset memory if the sum is wrong.
    """
    lengths: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 30:
            raise InputError(f"{where} must be run lengths, got {shown(text)}")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (1 << shift) if code & 16 else 0
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    return lengths
