"""Scoring of sets of masks against true masks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from torch import Tensor

from plda.data.data_set import DataSet
from plda.data.images import VOID
from plda.data.index import Entry
from plda.masks.seeds import full_size, pseudo_mask
from plda.scoring.confusion import Confusion

CURVE = tuple(round(0.02 * i, 2) for i in range(1, 46))
"""Background scores of the curve: 0.02 to 0.90."""
OUTLINE = 3  # pixels, the largest distance to an outline that counts as near it


class Scored(NamedTuple):
    """The scores of one set of masks.

    Attributes:
        everywhere: confusion matrix of all pixels.
        outlines: confusion matrix of the pixels near an outline, see `trimap`.
        parts: fraction of pixels with their true class, on the parts `telling` and `body`; None if unknown.
        images: mean IoU of each image by its key, percent, see `plda.scoring.images.score_images`.
    """

    everywhere: Confusion
    outlines: Confusion
    parts: dict[str, float] | None
    images: Mapping[str, float]


def score_set(data: DataSet, entries: Iterable[Entry], mask_of: Callable[[Entry], np.ndarray]) -> Scored:
    """Score the masks of every entry with a true mask; `mask_of` is called once for each."""
    classes = len(data.classes)
    everywhere, outlines, parts = Confusion(classes), Confusion(classes), _Parts()
    images = {}
    for entry in entries:
        if entry.mask:
            truth, given = data.true_mask(entry), mask_of(entry)
            own = Confusion(classes)
            own.add(truth, given)
            everywhere.counts += own.counts
            if own.pixels:
                images[entry.key] = own.scores().mean()["miou"]
            outlines.add(trimap(truth, OUTLINE), given)
            if entry.parts:
                parts.add(data.parts(entry), truth == given)
    return Scored(everywhere, outlines, parts.recall(), images)


def trimap(truth: np.ndarray, width: int) -> np.ndarray:
    """Return `truth` near outlines, VOID elsewhere, for scores that show what mIoU hides.

    Source: Kohli et al., IJCV 2009.

    Args:
        truth: (H, W) uint8 class ids, VOID where unknown.
        width: a pixel is kept if a pixel of another id is at most this many rows and columns away. Where void
            pixels separate two classes, as in PASCAL VOC, both sides of the void pixels are outlines.
    """
    side = 2 * width + 1
    flat = ndimage.maximum_filter(truth, side) == ndimage.minimum_filter(truth, side)
    return np.where(flat, np.uint8(VOID), truth)


def seed_masks(
    data: DataSet, maps_of: Callable[[Entry], Tensor], background: float
) -> Callable[[Entry], np.ndarray]:
    """Return a function from an entry to its seeds, (H, W) class ids; `maps_of` is as in `score_seeds`."""

    def mask_of(entry: Entry) -> np.ndarray:
        return pseudo_mask(maps_of(entry), data.ids(entry), background, 0.0, entry.size).numpy()

    return mask_of


def score_seeds(
    data: DataSet,
    entries: Iterable[Entry],
    maps_of: Callable[[Entry], Tensor],
    background_scores: Sequence[float],
) -> list[Confusion]:
    """Return one confusion matrix of the seeds for each background score.

    `maps_of` returns an entry's (K, h, w) maps in [0, 1], one for each tag. They are resized to the image.
    Each true mask is read once for all background scores: a pixel gets the class of its strongest map, or
    background if the background score is at least the value of this map.
    """
    classes = len(data.classes)
    thresholds = np.asarray(background_scores)
    order = thresholds.argsort()
    counts = np.zeros((len(thresholds) + 1, classes, classes), np.int64)
    for entry in entries:
        if not entry.mask:
            continue
        truth = data.true_mask(entry)
        strength, winner = (x.numpy() for x in full_size(maps_of(entry), truth.shape).max(dim=0))
        ids = np.array(data.ids(entry))[winner]
        # number of sorted thresholds that the pixel's strength exceeds
        level = np.searchsorted(thresholds[order], strength, side="left")
        known = truth < classes
        cells = (level[known] * classes + truth[known]) * classes + ids[known]
        counts += np.bincount(cells, minlength=counts.size).reshape(counts.shape)
    return [_confusion(counts, rank) for rank in order.argsort()]


def _confusion(counts: np.ndarray, rank: int) -> Confusion:
    """Return the confusion matrix in which pixels that exceed more than `rank` thresholds keep their class.

    All other pixels are background.
    """
    classes = counts.shape[1]
    confusion = Confusion(classes)
    confusion.counts[:, :classes] = counts[rank + 1 :].sum(axis=0)
    confusion.counts[:, 0] += counts[: rank + 1].sum(axis=(0, 2))
    return confusion


class _Parts:
    """Counts of all pixels and of correctly classified pixels, by part."""

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
