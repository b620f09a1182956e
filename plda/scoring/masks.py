"""Scoring whole sets of masks against true ones."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from torch import Tensor

from plda.data.archive import Archive
from plda.data.classes import class_ids
from plda.data.images import VOID
from plda.data.index import Entry
from plda.data.loading import load_true_mask
from plda.masks.seeds import full_size, pseudo_mask
from plda.scoring.confusion import Confusion

CURVE = tuple(round(0.02 * i, 2) for i in range(1, 46))
"""Background scores of the curve: 0.02 to 0.90."""
OUTLINE = 3  # pixels on either side of an outline that count as near it


class Scored(NamedTuple):
    """What one set of masks is worth.

    Attributes:
        everywhere: all pixels.
        outlines: those near an outline, see `trimap`.
        parts: share of pixels given their true class, on `telling` parts and on the `body`; None if unknown.
        images: as `plda.scoring.images.score_images` has it: each image's own mean IoU by its key, percent.
    """

    everywhere: Confusion
    outlines: Confusion
    parts: dict[str, float] | None
    images: Mapping[str, float]


def score_set(
    entries: Iterable[Entry],
    archive: Archive,
    mask_of: Callable[[Entry], np.ndarray],
    classes: int,
) -> Scored:
    """Score the masks of every entry that has a true one; each is made once."""
    everywhere, outlines, parts = Confusion(classes), Confusion(classes), _Parts()
    images = {}
    for entry in entries:
        if entry.mask:
            truth, given = load_true_mask(archive, entry.mask), mask_of(entry)
            own = Confusion(classes)
            own.add(truth, given)
            everywhere.counts += own.counts
            if own.pixels:
                images[entry.key] = own.scores().mean()["miou"]
            outlines.add(trimap(truth, OUTLINE), given)
            if entry.parts:
                parts.add(load_true_mask(archive, entry.parts), truth == given)
    return Scored(everywhere, outlines, parts.recall(), images)


def trimap(truth: np.ndarray, width: int) -> np.ndarray:
    """`truth` near outlines, VOID elsewhere: a score on it shows what mIoU hides (Kohli et al., IJCV 2009).

    Args:
        truth: (H, W) uint8 class ids, VOID where unknown.
        width: a pixel stays that is at most so many rows and columns from one of another id. Where void
            pixels lie between two classes, as in PASCAL VOC, the outline is on either side of them.
    """
    side = 2 * width + 1
    flat = ndimage.maximum_filter(truth, side) == ndimage.minimum_filter(truth, side)
    return np.where(flat, np.uint8(VOID), truth)


def seed_masks(
    maps_of: Callable[[Entry], Tensor], classes: Sequence[str], background: float
) -> Callable[[Entry], np.ndarray]:
    """An entry's seeds as a mask, (H, W) class ids; `maps_of` as in `score_seeds`."""

    def mask_of(entry: Entry) -> np.ndarray:
        ids, size = class_ids(entry.tags, classes), (entry.height, entry.width)
        return pseudo_mask(maps_of(entry), ids, background, 0.0, size).numpy()

    return mask_of


def score_seeds(
    entries: Iterable[Entry],
    archive: Archive,
    maps_of: Callable[[Entry], Tensor],
    classes: Sequence[str],
    background_scores: Sequence[float],
) -> list[Confusion]:
    """One confusion matrix of the seeds for each background score.

    `maps_of` gives an entry's (K, h, w) maps in [0, 1], one for each tag. They are resized to the image, and
    each true mask is read once for all background scores: a pixel's class is its strongest map's, and it is
    background from the first score on that this map does not exceed.
    """
    thresholds = np.asarray(background_scores)
    order = thresholds.argsort()
    counts = np.zeros((len(thresholds) + 1, len(classes), len(classes)), np.int64)
    for entry in entries:
        if not entry.mask:
            continue
        truth = load_true_mask(archive, entry.mask)
        strength, winner = (x.numpy() for x in full_size(maps_of(entry), truth.shape).max(dim=0))
        ids = np.array(class_ids(entry.tags, classes))[winner]
        # how many of the sorted thresholds the pixel's strength exceeds
        level = np.searchsorted(thresholds[order], strength, side="left")
        known = truth < len(classes)
        cells = (level[known] * len(classes) + truth[known]) * len(classes) + ids[known]
        counts += np.bincount(cells, minlength=counts.size).reshape(counts.shape)
    return [_confusion(counts, rank) for rank in order.argsort()]


def _confusion(counts: np.ndarray, rank: int) -> Confusion:
    """Pixels that exceed more than `rank` thresholds keep their class, the others are background."""
    classes = counts.shape[1]
    confusion = Confusion(classes)
    confusion.counts[:, :classes] = counts[rank + 1 :].sum(axis=0)
    confusion.counts[:, 0] += counts[: rank + 1].sum(axis=(0, 2))
    return confusion


class _Parts:
    """Counts of pixels by part, and of those that were given their true class."""

    def __init__(self) -> None:
        self._hits, self._pixels = np.zeros(3), np.zeros(3)

    def add(self, parts: np.ndarray, right: np.ndarray) -> None:
        self._hits += np.bincount(parts[right], minlength=3)[:3]
        self._pixels += np.bincount(parts.ravel(), minlength=3)[:3]

    def recall(self) -> dict[str, float] | None:
        if not self._pixels[1:].all():
            return None
        _, telling, body = self._hits / np.maximum(self._pixels, 1)
        return {"telling": telling, "body": body}
