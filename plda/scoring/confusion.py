"""Scores of masks from one confusion matrix of the whole set (docs/method.md, Scoring)."""

from dataclasses import dataclass

import numpy as np

from plda.data.images import VOID


class Confusion:
    """Counts of pixels by true class and given class.

    Background is a class like any other. Pixels that are void in the true mask do not count. Pixels that are
    undecided in the given mask have a column for themselves: they count as misses, never as hits.
    """

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, classes + 1), np.int64)  # last column: undecided

    def add(self, truth: np.ndarray, given: np.ndarray) -> None:
        """Count one image: (H, W) uint8 each.

        Raises:
            ValueError: the shapes of the two masks differ.
        """
        if truth.shape != given.shape:
            raise ValueError(f"masks of {truth.shape} and {given.shape} cannot be compared")
        rows, columns = self.counts.shape
        known = truth != VOID
        column = np.where(given[known] == VOID, columns - 1, given[known])
        cells = truth[known].astype(np.int64) * columns + column
        self.counts += np.bincount(cells, minlength=rows * columns).reshape(rows, columns)

    @property
    def pixels(self) -> int:
        """Return the number of counted pixels."""
        return int(self.counts.sum())

    def scores(self) -> "Scores":
        """Return the scores in which an undecided pixel is a miss."""
        return self._scores(self.counts.sum(axis=1))

    def decided_scores(self) -> "Scores":
        """Return the scores of the decided pixels only."""
        return self._scores(self.counts[:, :-1].sum(axis=1))

    def undecided(self) -> float:
        """Return the fraction of undecided pixels."""
        return float(self.counts[:, -1].sum() / max(self.counts.sum(), 1))

    def objects(self) -> dict[str, float]:
        """Return metrics that separate errors of shape from errors of class, in percent.

        An object is any class but background. Undecided pixels do not count as object. A share of no pixels
        is 0.

        Returns:
            `object_iou`, `object_precision`, `object_recall`: scores of object against background, from one
            binary confusion matrix; `object_class`: fraction of the pixels with the right class among those
            that are object in both masks; `object_share`, `object_share_true`: fraction of all counted pixels
            that are object in the given mask and in the true mask.
        """
        both = self.counts[1:, 1:-1]
        hits, given, true = both.sum(), self.counts[:, 1:-1].sum(), self.counts[1:].sum()
        shares = {
            "object_iou": (hits, given + true - hits),
            "object_precision": (hits, given),
            "object_recall": (hits, true),
            "object_class": (both.trace(), hits),
            "object_share": (given, self.pixels),
            "object_share_true": (true, self.pixels),
        }
        return {name: percent(part / max(whole, 1)) for name, (part, whole) in shares.items()}

    def _scores(self, true: np.ndarray) -> "Scores":
        given = self.counts[:, :-1].sum(axis=0)
        hits = self.counts.diagonal()
        with np.errstate(invalid="ignore"):
            return Scores(iou=hits / (true + given - hits), precision=hits / given, recall=hits / true)


@dataclass(frozen=True)
class Scores:
    """Scores per class, (C,) each, in [0, 1]; nan for a class that no true and no given mask has."""

    iou: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    def mean(self) -> dict[str, float]:
        """Return the means over classes, in percent: `miou`, `precision`, `recall`.

        A class that is given but never true counts as 0 in mIoU; a class that is neither given nor true is
        left out.
        """
        names = {"miou": self.iou, "precision": self.precision, "recall": self.recall}
        return {name: percent(_mean(values)) for name, values in names.items()}


def percent(share: float) -> float:
    """Return a fraction in percent with two decimals, the format of metrics files."""
    return round(100 * float(share), 2)


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0
