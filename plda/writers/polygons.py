"""Polygons around objects, and back.

Coordinates are x, y in pixels from the image's upper left corner, so that the centre of the first pixel is
(0.5, 0.5). Programs fill a polygon by one of three rules: the pixels whose centre is inside (pycocotools); or
the pixels inside and on its outline (OpenCV, Pillow), after its corners have been cut to whole numbers
(Ultralytics) or rounded (supervision). No polygon gives the same pixels by all rules. A pixel's right edge
would have to be at least 0.5 for the first, and below for the last. So there are two kinds of polygons.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from scipy.spatial import cKDTree
from skimage.measure import approximate_polygon, find_contours

from plda.writers.pieces import Piece

LEAST_IOU = 0.98  # of an object and what a program reads
AIMED_IOU = 0.985  # of an object and its filled polygon, by each rule of its kind
DECIMALS = 2  # of coordinates in pixels

Fill = Callable[[np.ndarray, int, int], np.ndarray]


def fill_centres(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the pixels whose centre is inside a polygon, (height, width) bool, with pycocotools."""
    runs = coco_mask.frPyObjects([polygon.ravel().tolist()], height, width)
    return np.asarray(coco_mask.decode(runs)[:, :, 0], dtype=bool)


def fill_cut(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the pixels inside a polygon and on its outline, after cutting off decimals, with Pillow."""
    return _drawn(polygon, height, width, wide=False)


def fill_rounded(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the pixels inside a polygon and on its outline, after rounding, with Pillow."""
    return _drawn(polygon.round(), height, width, wide=False)


def _fill_cut_wide(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    return _drawn(polygon, height, width, wide=True)


def _fill_rounded_wide(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    return _drawn(polygon.round(), height, width, wide=True)


def _drawn(polygon: np.ndarray, height: int, width: int, wide: bool) -> np.ndarray:
    """Draw a polygon; OpenCV's slanted edges lie between those that are not wide and those that are."""
    corners = [(int(x), int(y)) for x, y in (*polygon, polygon[0])]
    image = Image.new("1", (width, height))
    draw = ImageDraw.Draw(image)
    draw.polygon(corners, fill=1, outline=1)
    if wide:
        draw.line(corners, fill=1)
        draw.line(corners[::-1], fill=1)
    return np.asarray(image)


class Kind(NamedTuple):
    """A kind of polygons.

    Attributes:
        inset: distance in pixels from the border of the object inwards, in [0, 0.5).
        shift: pixels added to x and y.
        fills: the rules by which the polygon gives the pixels of the object.
    """

    inset: float
    shift: float
    fills: tuple[Fill, ...]


# 0.01: pycocotools rounds to fifths of a pixel; a coordinate of 0.5 would go up or down by chance
CENTRED = Kind(0.25, 0.01, (fill_centres, fill_cut, _fill_cut_wide))
DRAWN = Kind(0.35, -0.25, (fill_cut, _fill_cut_wide, fill_rounded, _fill_rounded_wide))


def outline(piece: Piece, tolerance: float, kind: Kind = CENTRED) -> np.ndarray:
    """Return one polygon around an object; seams of no width join its holes to its outer ring.

    The tolerance is reduced for this object until each rule of the kind gives an IoU of AIMED_IOU.

    Args:
        piece: the object.
        tolerance: largest distance in pixels between the outline and the polygon (Douglas-Peucker).
        kind: the kind of polygon.

    Returns:
        (N, 2) float64, x and y of the corners in the image, with two decimals; the first is not repeated.
    """
    height, width = piece.inside.shape
    rings = _rings(piece.inside, kind)
    for allowed in (tolerance, tolerance / 2, tolerance / 4, 0.0):
        simple = [_simple(ring, allowed) for ring in rings]
        if len(simple[0]) < 3:
            continue
        polygon = _joined([simple[0], *(hole for hole in simple[1:] if len(hole) > 2)]).round(DECIMALS)
        if min(_iou(fill(polygon, height, width), piece.inside) for fill in kind.fills) >= AIMED_IOU:
            break
    moved: np.ndarray = (polygon + np.array([piece.left, piece.top])).round(DECIMALS)
    return moved


def _rings(inside: np.ndarray, kind: Kind) -> list[np.ndarray]:
    """Return the closed outlines of an object, (N, 2) x and y in its box: the outer one, then the holes."""
    padded = np.pad(inside, 1).astype(np.float64)
    # corners connect, as in find_pieces
    found = find_contours(padded, 0.5 + kind.inset, fully_connected="high")  # type: ignore[no-untyped-call]
    rings = [ring[:, ::-1] - 0.5 + kind.shift for ring in found]  # without the padding, from the corner
    return sorted(rings, key=lambda ring: -float(np.ptp(ring, axis=0).sum()))


def _simple(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """Return a closed ring with fewer corners (Douglas-Peucker), the first not repeated."""
    corners: np.ndarray = approximate_polygon(ring, tolerance)  # type: ignore[no-untyped-call]
    return corners[:-1]


def _joined(rings: Sequence[np.ndarray]) -> np.ndarray:
    """Insert holes into the outer ring, each where it is closest to the rings that are already joined.

    The closest hole is next. So no seam crosses a hole: that hole would be closer.
    """
    joined, holes = rings[0], rings[1:]
    if not holes:
        return joined
    points, owner = np.concatenate(holes), np.repeat(np.arange(len(holes)), [len(hole) for hole in holes])
    left = np.ones(len(points), bool)
    distance, index = cKDTree(joined).query(points)
    anchor = joined[index]  # the joined corner that is closest to each point
    for _ in holes:
        nearest = int(np.where(left, distance, np.inf).argmin())
        own = np.flatnonzero(owner == owner[nearest])
        ring = np.roll(points[own], own[0] - nearest, axis=0)
        at = int(np.flatnonzero((joined == anchor[nearest]).all(axis=1))[0])
        joined = np.concatenate([joined[: at + 1], ring, ring[:1], joined[at:]])
        left[own] = False
        other, index = cKDTree(ring).query(points)
        anchor = np.where((other < distance)[:, None], ring[index], anchor)
        distance = np.minimum(distance, other)
    return joined


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())
