"""Polygons around objects, and back.

Coordinates are x, y in pixels from the image's upper left corner, so that the centre of the first pixel is
(0.5, 0.5). Programs fill polygons by two rules: pixels whose centre is inside (pycocotools), or all pixels
that the outline passes through, too (OpenCV and Pillow, after cutting off decimals). Outlines therefore run
a quarter of a pixel inside the object's border, where both rules give the same pixels.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from scipy.spatial import cKDTree
from skimage.measure import approximate_polygon, find_contours

from plda.writers.pieces import Piece

INSIDE = 0.75  # contour level: a quarter of a pixel inside the border
OFF_CENTRE = 0.01  # added to coordinates: pycocotools rounds to fifths of a pixel, up or down at a centre
LEAST_IOU = 0.98  # of an object and its polygon, filled by either rule
DECIMALS = 2  # of coordinates in pixels


def outline(piece: Piece, tolerance: float) -> np.ndarray:
    """Return one polygon around an object; seams of no width join its holes to its outer ring.

    The tolerance is reduced for this object until either filling rule gives an IoU of LEAST_IOU.

    Args:
        piece: the object.
        tolerance: largest distance in pixels between the outline and the polygon (Douglas-Peucker).

    Returns:
        (N, 2) float64, x and y of the corners in the image, with two decimals; the first is not repeated.
    """
    height, width = piece.inside.shape
    rings = _rings(piece.inside)
    for allowed in (tolerance, tolerance / 2, tolerance / 4, 0.0):
        simple = [_simple(ring, allowed) for ring in rings]
        if len(simple[0]) < 3:
            continue
        polygon = _joined([simple[0], *(hole for hole in simple[1:] if len(hole) > 2)]).round(DECIMALS)
        filled = (fill_centres(polygon, height, width), fill_touched(polygon, height, width))
        if min(_iou(pixels, piece.inside) for pixels in filled) >= LEAST_IOU:
            break
    moved: np.ndarray = (polygon + np.array([piece.left, piece.top])).round(DECIMALS)
    return moved


def fill_centres(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the pixels whose centre is inside a polygon, (height, width) bool, with pycocotools."""
    runs = coco_mask.frPyObjects([polygon.ravel().tolist()], height, width)
    return np.asarray(coco_mask.decode(runs)[:, :, 0], dtype=bool)


def fill_touched(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the pixels inside a polygon and on its outline, (height, width) bool, with Pillow."""
    image = Image.new("1", (width, height))
    ImageDraw.Draw(image).polygon([(int(x), int(y)) for x, y in polygon], fill=1, outline=1)
    return np.asarray(image)


def _rings(inside: np.ndarray) -> list[np.ndarray]:
    """Return the closed outlines of an object, (N, 2) x and y in its box: the outer one, then the holes."""
    padded = np.pad(inside, 1).astype(np.float64)
    # corners connect, as in find_pieces
    found = find_contours(padded, INSIDE, fully_connected="high")  # type: ignore[no-untyped-call]
    rings = [ring[:, ::-1] - 0.5 + OFF_CENTRE for ring in found]  # without the padding, from the corner
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
