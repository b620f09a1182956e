"""How many pixels a segmentation network calls object, matched to the masks that it has learnt from.

Pseudo-masks err here and there, and are argued over at outlines. A network that learns from them spreads its
belief over classes there, and background, which most pixels are, wins: objects shrink. One number mends that:
the offset b by which the background's score is lowered. With the margin d = log p_background - max_c log p_c
of each pixel, "object" wins where d < b; so b is the quantile of d over training pixels at the share of them
that the masks call object. No true mask is looked at (docs/measured/masks.md).
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from torch import Tensor

from plda.data.images import VOID

SAMPLE = 120  # images: enough for a share
STRIDE = 4  # of the pixels that are looked at
LEAST = 1e-8  # of a probability, whose logarithm is taken


class Match(NamedTuple):
    """What was found.

    Attributes:
        offset: by which the background's score is to be lowered.
        masks: share of the decided training pixels that the masks call object.
        network: the same where nothing is matched.
    """

    offset: float
    masks: float
    network: float


def match_object_share(leads: Iterable[tuple[np.ndarray, np.ndarray]]) -> Match:
    """Find the offset with which as many pixels are called object as masks do.

    Args:
        leads: of some images, see `lead`.

    Returns:
        Offset 0 where the masks call no pixel object, or every pixel.
    """
    margins, objects = (np.concatenate(parts) for parts in zip(*leads, strict=True))
    pixels = max(objects.size, 1)
    share, learnt = objects.sum() / pixels, (margins < 0).sum() / pixels
    offset = np.quantile(margins, share) if 0 < share < 1 else 0.0
    return Match(float(offset), float(share), float(learnt))


def lead(probabilities: Tensor, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of some decided pixels of an image, by how much background leads, and whether the mask says object.

    Args:
        probabilities: (C, H, W), background first.
        mask: (H, W) class ids, VOID where undecided.
    """
    ids = mask[::STRIDE, ::STRIDE].ravel()
    seen = probabilities[:, ::STRIDE, ::STRIDE].clamp_min(LEAST).log()
    margin = (seen[0] - seen[1:].amax(dim=0)).flatten().float().cpu().numpy()
    return margin[ids != VOID], ids[ids != VOID] > 0
