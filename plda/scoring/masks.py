"""Scoring whole sets of masks against true ones."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from plda.data.archive import Archive
from plda.data.classes import class_ids
from plda.data.index import Entry
from plda.data.loading import load_true_mask
from plda.masks.seeds import pseudo_mask
from plda.scoring.confusion import Confusion

CURVE = tuple(round(0.02 * i, 2) for i in range(1, 46))
"""Background scores of the curve: 0.02 to 0.90."""


def score_masks(
    entries: Iterable[Entry],
    archive: Archive,
    mask_of: Callable[[Entry], np.ndarray],
    classes: int,
) -> Confusion:
    """One confusion matrix over every entry that has a true mask."""
    confusion = Confusion(classes)
    for entry in entries:
        if entry.mask:
            confusion.add(load_true_mask(archive, entry.mask), mask_of(entry))
    return confusion


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
        maps = F.interpolate(maps_of(entry)[None], truth.shape, mode="bilinear", align_corners=False)
        strength, winner = (x.numpy() for x in maps[0].max(dim=0))
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


def recall_by_part(
    entries: Iterable[Entry],
    archive: Archive,
    mask_of: Callable[[Entry], np.ndarray],
) -> dict[str, float] | None:
    """Share of pixels given their true class, on the telling parts and on the bodies; None without parts."""
    hits, pixels = np.zeros(3), np.zeros(3)
    for entry in entries:
        if entry.mask and entry.parts:
            parts = load_true_mask(archive, entry.parts)
            right = load_true_mask(archive, entry.mask) == mask_of(entry)
            hits += np.bincount(parts[right], minlength=3)[:3]
            pixels += np.bincount(parts.ravel(), minlength=3)[:3]
    if not pixels[1:].all():
        return None
    return {"telling": hits[1] / pixels[1], "body": hits[2] / pixels[2]}
