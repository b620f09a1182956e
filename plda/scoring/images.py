"""What each image's mask is worth by itself, and what is taken for what in all of them."""

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
    """Score the mask of every entry that has a true one by itself, and all of them together.

    Returns:
        By the entry's key, the mean IoU in percent over the classes that are in the image's true mask or in
        the given one, background too; an image that is all void has none. And the confusion matrix of all.
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
