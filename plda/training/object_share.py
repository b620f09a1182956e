"""Match the number of object pixels of a segmentation network to that of its training masks.

Pseudo-masks contain errors and are uncertain at outlines. There, a network that is trained on them spreads
its probability over several classes, and background, the most frequent class, wins: objects shrink. One
number corrects this: the offset b that is subtracted from the background's score. With the margin
d = log p_background - max_c log p_c of each pixel, "object" wins where d < b. So b is the quantile of d over
training pixels at the fraction of them that is object in the masks. No true mask is used
(docs/measured/masks.md).
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from torch import Tensor

from plda.data.images import VOID

SAMPLE = 120  # images: enough to estimate a fraction
STRIDE = 4  # distance between sampled pixels
LEAST = 1e-8  # minimum probability before the logarithm


class Match(NamedTuple):
    """The result of the matching.

    Attributes:
        offset: is to be subtracted from the background's score.
        masks: fraction of the decided training pixels that are object in the masks.
        network: fraction of the same pixels that are object for the network without an offset.
    """

    offset: float
    masks: float
    network: float


def match_object_share(leads: Iterable[tuple[np.ndarray, np.ndarray]]) -> Match:
    """Find the offset with which the network calls as many pixels object as the masks do.

    Args:
        leads: results of `lead` for some images.

    Returns:
        The match; its offset is 0 if the masks call no pixel object, or every pixel.
    """
    margins, objects = (np.concatenate(parts) for parts in zip(*leads, strict=True))
    pixels = max(objects.size, 1)
    share, learnt = objects.sum() / pixels, (margins < 0).sum() / pixels
    offset = np.quantile(margins, share) if 0 < share < 1 else 0.0
    return Match(float(offset), float(share), float(learnt))


def lead(probabilities: Tensor, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return background's margin, and whether the mask says object, for a sample of the decided pixels.

    Args:
        probabilities: (C, H, W), background first.
        mask: (H, W) class ids, VOID where undecided.
    """
    ids = mask[::STRIDE, ::STRIDE].ravel()
    seen = probabilities[:, ::STRIDE, ::STRIDE].clamp_min(LEAST).log()
    margin = (seen[0] - seen[1:].amax(dim=0)).flatten().float().cpu().numpy()
    return margin[ids != VOID], ids[ids != VOID] > 0
