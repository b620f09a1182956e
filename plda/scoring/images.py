"""Scores of each image's mask, and the confusion matrix of all masks."""

from collections.abc import Callable, Iterable

import numpy as np

from plda.data.archive import Archive
from plda.data.index import Entry
from plda.data.loading import load_true_mask
from plda.scoring.confusion import Confusion


def score_images(
    entries: Iterable[Entry],
    archive: Archive,
    mask_of: Callable[[Entry], np.ndarray],
    classes: int,
) -> tuple[dict[str, float], Confusion]:
    """Score the mask of every entry with a true mask, for each image and for all together.

    Returns:
        The image scores by key: the mean IoU in percent over the classes in the true or the given mask,
        background included; an image without known pixels has no score. And the confusion matrix of all
        images.
    """
    scores, total = {}, Confusion(classes)
    for entry in entries:
        if entry.mask:
            own = Confusion(classes)
            own.add(load_true_mask(archive, entry.mask), mask_of(entry))
            if own.pixels:
                scores[entry.key] = own.scores().mean()["miou"]
            total.counts += own.counts
    return scores, total
