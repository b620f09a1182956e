"""The baseline `lse`: log-sum-exp pooling of the scores (Pinheiro and Collobert, CVPR 2015).

As `cam`, but the logit of class c is the log-sum-exp of its scores s over the N pixels,

    logit_c = 1/r log(1/N sum_p exp(r s_cp)),

between their mean (r to 0) and their maximum (r to infinity). Strong pixels weigh more than in the mean, so a
small object does not need higher scores than a large one.
"""

import math

from torch import Tensor

from plda.models.cam import CamNetwork

SHARPNESS = 5.0  # r


class LseNetwork(CamNetwork):
    """A backbone with a class head, as in `cam`."""

    @staticmethod
    def pool(scores: Tensor) -> Tensor:
        """Return tag logits (B, C) of class scores (B, C, h, w)."""
        return log_sum_exp(scores, SHARPNESS)


def log_sum_exp(scores: Tensor, sharpness: float) -> Tensor:
    """Pool (B, C, h, w) scores to (B, C), between the mean and the maximum over the pixels."""
    pixels = scores.shape[-2] * scores.shape[-1]
    return ((sharpness * scores).logsumexp(dim=(2, 3)) - math.log(pixels)) / sharpness
