"""Scores of each image's mask, and the confusion matrix of all masks."""

from collections.abc import Callable, Iterable

import numpy as np

from plda.data.data_set import DataSet
from plda.data.index import Entry
from plda.scoring.confusion import Confusion


def score_images(
    data: DataSet, entries: Iterable[Entry], mask_of: Callable[[Entry], np.ndarray]
) -> tuple[dict[str, float], Confusion]:
    """Score the mask of every entry with a true mask, for each image and for all together.

    Returns:
        The image scores by key: the mean IoU in percent over the classes in the true or the given mask,
        background included; an image without known pixels has no score. And the confusion matrix of all
        images.
    """
    classes = len(data.classes)
    scores, total = {}, Confusion(classes)
    for entry in entries:
        if entry.mask:
            own = Confusion(classes)
            own.add(data.true_mask(entry), mask_of(entry))
            if own.pixels:
                scores[entry.key] = own.scores().mean()["miou"]
            total.counts += own.counts
    return scores, total
