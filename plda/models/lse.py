"""The baseline `lse`: the strongest pixels tell the tags, not all alike (Pinheiro and Collobert, CVPR 2015).

As `cam`, but the logit of class c is the log-sum-exp of its scores s over the N pixels,

    logit_c = 1/r log(1/N sum_p exp(r s_cp)),

between their mean (r to 0) and their maximum (r to infinity): a small object need not be louder than a large
one to be heard.
"""

import math

from torch import Tensor

from plda.models.cam import CamNetwork, CamOutput

SHARPNESS = 5.0  # r


class LseNetwork(CamNetwork):
    """Backbone and class head, as in `cam`."""

    def forward(self, image: Tensor) -> CamOutput:
        """What it says of (B, 3, H, W) RGB in [0, 1]."""
        output = super().forward(image)
        return output._replace(logits=log_sum_exp(output.scores, SHARPNESS))


def log_sum_exp(scores: Tensor, sharpness: float) -> Tensor:
    """(B, C, h, w) to (B, C), between the mean and the maximum over the pixels."""
    pixels = scores.shape[-2] * scores.shape[-1]
    return ((sharpness * scores).logsumexp(dim=(2, 3)) - math.log(pixels)) / sharpness
