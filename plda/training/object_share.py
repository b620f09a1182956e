"""How many pixels a segmentation network calls object, matched to the masks that it has learnt from.

Pseudo-masks err here and there, and are argued over at outlines. A network that learns from them spreads its
belief over classes there, and background, which most pixels are, wins: objects shrink. One number mends that:
the offset b by which the background's score is lowered. With the margin d = s_background - max_c s_c of each
pixel, the network says "object" where d < b; so b is the quantile of d over the training pixels at the share
of them that the masks call object. No true mask is looked at (docs/measured/masks.md).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from plda.data.archive import Archive
from plda.data.images import VOID
from plda.data.index import Entry
from plda.data.loading import load_image
from plda.data.transforms import unit

SAMPLE = 200  # images: enough for a share
STRIDE = 4  # of the pixels that are looked at


class Match(NamedTuple):
    """What was found.

    Attributes:
        offset: by which the background's score is to be lowered.
        masks: share of the decided training pixels that the masks call object.
        network: the same of the network, before.
    """

    offset: float
    masks: float
    network: float


def match_object_share(
    network: Callable[[Tensor], Tensor],
    entries: Sequence[Entry],
    archive: Archive,
    mask_of: Callable[[Entry], np.ndarray],
    device: torch.device,
) -> Match:
    """Find the offset with which a network calls as many of the training pixels object as its masks do.

    Args:
        network: (B, 3, H, W) RGB in [0, 1] on `device` to class scores (B, C, H, W), background first.
        entries: the training set; SAMPLE evenly spread images of it are looked at.
        archive: of its images.
        mask_of: an entry's (H, W) class ids, VOID where undecided; these pixels are left out.
        device: where the network runs.

    Returns:
        Offset 0 where the masks call no pixel object, or every pixel.
    """
    sample = entries[:: math.ceil(len(entries) / SAMPLE)]
    found = list(_margins(network, sample, archive, mask_of, device))
    margins, objects = (np.concatenate(parts) for parts in zip(*found, strict=True))
    pixels = max(objects.size, 1)
    share, learnt = objects.sum() / pixels, (margins < 0).sum() / pixels
    offset = np.quantile(margins, share) if 0 < share < 1 else 0.0
    return Match(float(offset), float(share), float(learnt))


def _margins(
    network: Callable[[Tensor], Tensor],
    entries: Sequence[Entry],
    archive: Archive,
    mask_of: Callable[[Entry], np.ndarray],
    device: torch.device,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each image, of its decided pixels, by how much background leads, and whether they are object."""
    for entry in entries:
        mask = mask_of(entry)[::STRIDE, ::STRIDE].ravel()
        scores = network(unit(load_image(archive, entry)[None].to(device)))[0, :, ::STRIDE, ::STRIDE]
        lead = (scores[0] - scores[1:].amax(dim=0)).flatten().float().cpu().numpy()
        yield lead[mask != VOID], mask[mask != VOID] > 0
