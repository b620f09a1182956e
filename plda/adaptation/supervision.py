"""Confident pseudo-supervision: training on confident predictions (docs/method.md, PLDA, step 3).

Scores, with a constant 1 as the score of background, become probabilities, which PAMR refines by the image's
colours. A pixel gets the class whose probability is strictly above

    max(0.2, 0.6 · the class's maximum in the image)        (0.7 for background)

if there is only one such class, and if this class may label the pixel: its source pixels in the image, its
target pixels in the erased image. With n_k the number of the image's pixels of class k, and n that of all its
labelled pixels,

    L_cps = mean over the batch and all pixels of  [labelled] · CE(scores, k) · (n - n_k) / (1 + n)
"""

import torch
from torch import Tensor

from plda.adaptation.domains import balance_weights
from plda.data.transforms import resize
from plda.refinement.pamr import pamr

BACKGROUND_SCORE = 1.0
LEAST = 0.2
SHARE, BACKGROUND_SHARE = 0.6, 0.7


def with_background(scores: Tensor) -> Tensor:
    """Put the constant background score first: (B, C, h, w) class scores to (B, C + 1, h, w)."""
    return torch.cat([torch.full_like(scores[:, :1], BACKGROUND_SCORE), scores], dim=1)


@torch.no_grad()
def pseudo_labels(
    scores: Tensor, image: Tensor, tags: Tensor, teaches: Tensor, *, background: bool = False
) -> Tensor:
    """Return the pseudo-labels of confident pixels.

    Args:
        scores: (B, C, h, w).
        image: (B, 3, H, W) RGB, float in [0, 1]. PAMR works at its size: that of the scores, as published, or
            a larger one, which shows outlines; the result is then averaged down to (h, w).
        tags: (B, C) 0 or 1.
        teaches: (B, C, h, w) bool: the pixels that each class may label, its source or its target pixels.
        background: whether background pixels are kept; the research code keeps none.

    Returns:
        (B, C + 1, h, w) bool, at most one class per pixel, background first.
    """
    probabilities = with_background(scores).softmax(dim=1)
    present, carried = _present(tags)
    at = present[:, :, None, None].expand(-1, -1, *scores.shape[-2:])
    refined = resize(probabilities.gather(1, at), image.shape[-2:])
    refined = resize(pamr(image, refined), scores.shape[-2:]) * carried[:, :, None, None]
    share = refined.new_full((1, refined.shape[1], 1, 1), SHARE)
    share[:, 0] = BACKGROUND_SHARE
    threshold = (share * refined.amax(dim=(2, 3), keepdim=True)).clamp(min=LEAST)
    claimed = refined > threshold
    alone = claimed & (claimed.sum(dim=1, keepdim=True) == 1)
    labels = torch.zeros_like(probabilities, dtype=torch.bool).scatter(1, at, alone)
    allowed = torch.cat([torch.full_like(teaches[:, :1], background), teaches], dim=1)
    return labels & allowed


def _present(tags: Tensor) -> tuple[Tensor, Tensor]:
    """Return the channels that PAMR needs: background, and as many classes as the image with most tags has.

    Args:
        tags: (B, C) 0 or 1.

    Returns:
        (B, K) int64 channels of C + 1, each once; (B, K) bool, False for channels that only pad.
    """
    most = max(1, int(tags.sum(dim=1).max()))
    found, classes = tags.topk(most, dim=1)
    channels = torch.cat([torch.zeros_like(classes[:, :1]), classes + 1], dim=1)
    return channels, torch.cat([torch.ones_like(found[:, :1]), found], dim=1) > 0


def supervision_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Return L_cps.

    Args:
        scores: (B, C, h, w), not detached.
        labels: (B, C + 1, h, w) bool, as from `pseudo_labels`.

    Returns:
        A scalar; 0 if no pixel is labelled. Images whose labelled pixels all have one class add 0.
    """
    batch, _, height, width = scores.shape
    log_p = with_background(scores).log_softmax(dim=1)
    counts = labels.sum(dim=(2, 3))  # (B, C + 1)
    balance = balance_weights(counts, log_p.dtype)
    return (labels * -log_p * balance[:, :, None, None]).sum() / (batch * height * width)
