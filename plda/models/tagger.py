"""An image classifier inside a segmentation network: which classes are in the image.

A network that learns from masks forgets part of what its pretrained weights know of classes; a classifier
that learns from tags keeps more of it (docs/measured/masks.md).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plda.errors import InputError
from plda.models.backbones import Backbone, Network
from plda.models.cam import CamNetwork
from plda.models.lse import LseNetwork
from plda.models.saved import Architecture, Kind, read_saved


class Tagger(Network):
    """The part of a baseline that gives tag logits.

    Args:
        backbone: see `plda.models.backbones`.
        classes: number of classes without background.
        pool: class scores (B, C, h, w) to tag logits (B, C), as the baseline was trained.
    """

    def __init__(self, backbone: Backbone, classes: int, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.backbone = backbone
        self._pool = pool
        self.head = nn.Conv2d(backbone.channels["stage4"], classes, kernel_size=1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] to tag logits (B, C), C without background, float32."""
        scores: Tensor = self.head(self.backbone(image)["stage4"])
        return self._pool(scores.float())


POOLS = {"lse": LseNetwork.pool}
"""How a baseline gets tag logits from its scores, if not by their mean."""

TAGGER = Kind("cam", lambda b, a: Tagger(b, len(a.classes) - 1, POOLS.get(a.head, CamNetwork.pool)))


def read_tagger(path: Path, classes: Sequence[str]) -> tuple[Architecture, Mapping[str, Tensor]]:
    """Read the architecture and the weights of a `Tagger` from a trained baseline of the stage train_cam.

    Args:
        path: the network file of the baseline, whose `head.weight` computes class scores from features.
        classes: class names that it must have, background first.

    Raises:
        InputError: not a network file of a baseline, or of other classes.
    """
    architecture, weights = read_saved(path, TAGGER.name, classes)
    if "head.weight" not in weights:
        raise InputError(f"{path}: is not the network of a baseline: it has no head.weight")
    kept = {name: value for name, value in weights.items() if name.startswith("backbone.")}
    rows = len(classes) - 1  # SEAM's head has one more, the first, for background
    return architecture, {**kept, "head.weight": weights["head.weight"][-rows:]}


def weigh_classes(scores: Tensor, logits: Tensor) -> Tensor:
    """Weigh the classes of object pixels by how likely each is in the image.

    With p the softmax of the scores and q the sigmoid of the logits, for the classes c but background,

        p'(c) = p(object) p(c) q_c / sum_k p(k) q_k,    p(object) = sum_k p(k),

    so background keeps its probability, and an object pixel is more likely of a class that the image has.

    Args:
        scores: (B, C + 1, h, w), background first.
        logits: (B, C), tag logits.

    Returns:
        (B, C + 1, h, w): scores whose softmax is p'.
    """
    objects = scores[:, 1:]
    weighed = objects + F.logsigmoid(logits)[..., None, None]
    level = objects.logsumexp(dim=1, keepdim=True) - weighed.logsumexp(dim=1, keepdim=True)
    return torch.cat([scores[:, :1], weighed + level], dim=1)
