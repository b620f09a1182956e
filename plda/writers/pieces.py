"""Objects in a mask: each is a connected piece of one class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from plda.data.images import VOID

TOUCHING = np.ones((3, 3), bool)  # neighbours of a pixel, corners included


class Piece(NamedTuple):
    """An object: class id, first row and column in the image, and its pixels in its box, (h, w) bool."""

    label: int
    top: int
    left: int
    inside: np.ndarray

    @property
    def area(self) -> int:
        """Return the number of pixels."""
        return int(self.inside.sum())

    def pixels(self, height: int, width: int) -> np.ndarray:
        """Return the pixels in an image of the given size, (height, width) bool."""
        full = np.zeros((height, width), bool)
        rows, columns = self.inside.shape
        full[self.top : self.top + rows, self.left : self.left + columns] = self.inside
        return full


@dataclass(frozen=True)
class Picture:
    """A mask and the photo that it belongs to.

    Attributes:
        name: relative path of the mask, without extension; folders in it are separated by "/".
        mask: path of the mask.
        file: relative path of the photo, with extension.
        photo: path of the photo, or None if only its name is known.
        width: width in pixels, of the photo if there is one.
        height: height in pixels.
        score: expected IoU of the mask in [0, 1], or None if unknown.
    """

    name: str
    mask: Path
    file: str
    photo: Path | None
    width: int
    height: int
    score: float | None = None


class Labelled(NamedTuple):
    """A picture, its class ids, (H, W) uint8, its objects, and the number of pieces left out."""

    picture: Picture
    ids: np.ndarray
    pieces: list[Piece]
    small: int


@dataclass(frozen=True)
class Options:
    """What all formats need.

    Attributes:
        classes: class names by id, background first.
        tolerance: largest distance in pixels between an outline and its polygon.
        rle: whether objects are written as run lengths instead of polygons.
        photos: name of the folder of the photos.
    """

    classes: Sequence[str]
    tolerance: float = 1.0
    rle: bool = False
    photos: str = "photos"


def find_pieces(ids: np.ndarray, min_area: float = 0) -> tuple[list[Piece], int]:
    """Return the connected pieces of each class; pixels that touch at a corner are connected.

    Args:
        ids: (H, W) uint8 class ids. Background (0) and VOID are no objects.
        min_area: smaller pieces are left out: a number of pixels, or below 1 a share of the image.

    Returns:
        The pieces by class, then from top to bottom, and the number of pieces left out.
    """
    least = min_area * ids.size if min_area < 1 else min_area
    found, small = [], 0
    for label in np.unique(ids[(ids != 0) & (ids != VOID)]):
        numbers, _ = ndimage.label(ids == label, TOUCHING)
        areas = np.bincount(numbers.ravel())
        for number, (rows, columns) in enumerate(ndimage.find_objects(numbers), 1):
            if areas[number] < least:
                small += 1
                continue
            inside = numbers[rows, columns] == number
            found.append(Piece(int(label), rows.start, columns.start, inside))
    return found, small


def overlap(piece: Piece, pixels: np.ndarray) -> float:
    """Return the IoU of an object with the pixels, (H, W) bool, that were read back for it."""
    height, width = piece.inside.shape
    box = pixels[piece.top : piece.top + height, piece.left : piece.left + width]
    common = int((box & piece.inside).sum())
    return common / (int(pixels.sum()) + piece.area - common)
