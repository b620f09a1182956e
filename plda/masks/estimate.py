"""The expected quality of a mask, computed from the network's probabilities without a true mask.

If each pixel's class were drawn from the probabilities, a class's expected overlap with the mask would be the
sum of its probabilities over the mask's pixels of this class. Expected IoU is the IoU of such sums. Networks
tend to be overconfident: the number can rank images, but it is not a score.

The table `estimates.csv`, of predicted or of training masks, has the columns image (as in index.csv) and
expected_iou, percent.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from plda.data.index import Entry
from plda.errors import InputError
from plda.files import write_text

COLUMNS = ("image", "expected_iou")
EVIDENCE = 0.99  # quantile


def expected_iou(probabilities: Tensor, mask: Tensor, counted: Tensor | None = None) -> Tensor:
    """Estimate the mean IoU of each mask with the unknown true one.

    For each class c in a mask y, including background:

        sum of p_c where y = c / (number of pixels where y = c + sum of p_c where y != c)

    The estimate is the mean over these classes, and those in `counted`.

    Args:
        probabilities: (B, C, H, W) p, in [0, 1]; their sum over C is 1.
        mask: (B, H, W) y: the argmax of p over C, or any other mask. Pixels with ids from C on (VOID) belong
            to no class, so they lower the estimate.
        counted: (B, C) bool, classes that count as 0 where the mask does not show them; None: none.

    Returns:
        (B,) in percent, in [0, 100]; 100 where p is 1 for the class of every pixel, 0 for a mask without
        classes.

    Raises:
        ValueError: the shapes do not fit.
    """
    batch, _, *size = probabilities.shape
    if mask.shape != (batch, *size):
        raise ValueError(f"probabilities {tuple(probabilities.shape)} do not fit masks {tuple(mask.shape)}")
    hits, pixels = [], []
    for c, share in enumerate(probabilities.unbind(dim=1)):  # one class at a time, to save memory
        own = mask == c
        hits.append((share * own).sum(dim=(1, 2)))
        pixels.append(own.sum(dim=(1, 2)))
    total = probabilities.sum(dim=(2, 3))
    return expected_iou_of_sums(torch.stack(hits, dim=1), torch.stack(pixels, dim=1), total, counted)


def expected_iou_with_tags(probabilities: Tensor, mask: Tensor, ids: Sequence[Sequence[int]]) -> Tensor:
    """Estimate the IoU of masks that were made from tags, which may be wrong.

    It is `expected_iou` over background and the tagged classes, times the evidence for the least visible tag:
    the highest probability of its class, without the top 1 % of the pixels. A class that is nowhere probable
    is probably a wrong tag (docs/measured/masks.md, Review).

    Args:
        probabilities: (B, C, H, W), background first; of all classes, not only of the tagged ones.
        mask: (B, H, W) class ids, as in `expected_iou`.
        ids: class ids of each image's tags, [0] for none.

    Returns:
        (B,) in percent, in [0, 100].
    """
    tagged = torch.zeros(probabilities.shape[:2], dtype=torch.bool)
    for own, classes in zip(tagged, ids, strict=True):
        own[[0, *classes]] = True
    tagged = tagged.to(probabilities.device)
    pixels = probabilities.flatten(2)
    evidence = pixels.kthvalue(math.ceil(EVIDENCE * pixels.shape[2]), dim=2).values
    least = evidence.where(tagged, 1.0)[:, 1:].amin(dim=1)
    return least * expected_iou(probabilities, mask, tagged)


def expected_iou_of_sums(
    hits: Tensor, pixels: Tensor, total: Tensor, counted: Tensor | None = None
) -> Tensor:
    """Compute `expected_iou` from sums, for example of an image that is processed in parts.

    Args:
        hits: (..., C), the sum of p_c where y = c.
        pixels: (..., C), the number of pixels where y = c.
        total: (..., C), the sum of p_c over all pixels.
        counted: (..., C) bool, as in `expected_iou`.

    Returns:
        (...) in percent.
    """
    iou = hits / (pixels + (total - hits).clamp(min=0))  # rounding may give slightly less than 0
    present = pixels > 0
    among = present if counted is None else present | counted
    return 100 * iou.where(present, 0).sum(dim=-1) / among.sum(dim=-1).clamp(min=1)


def write_estimates(path: Path, estimates: Iterable[tuple[Entry, float]]) -> None:
    """Write the table, atomically: each image's expected IoU in percent, with two decimals."""
    frame = pd.DataFrame([(entry.image, f"{value:.2f}") for entry, value in estimates], columns=[*COLUMNS])
    write_text(path, frame.to_csv(index=False))


def read_estimates(path: Path, entries: Iterable[Entry]) -> Mapping[str, float]:
    """Return the expected IoU of each entry by its key, in percent.

    Raises:
        InputError: the file is not such a table, or has no row for an entry.
    """
    try:
        frame = pd.read_csv(path, dtype={"image": str}, keep_default_na=False)
        known = {str(image): float(value) for image, value in frame[[*COLUMNS]].itertuples(index=False)}
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: must be a table of {' and '.join(COLUMNS)}: {error}") from error
    found = {}
    for entry in entries:
        if entry.image not in known:
            raise InputError(f"{path}: {entry.image}: has a mask, but no row in this table")
        found[entry.key] = known[entry.image]
    return found
