"""The baseline `cam`: a classifier with a score map (Zhou et al., CVPR 2016; docs/method.md, Baselines).

A 1x1 convolution without bias computes the score map; its global average gives the tag logits. The loss is
multilabel soft margin. The class activation maps are relu(scores) of the tagged classes.
"""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from plda.models.backbones import Backbone, Network

EPSILON = 1e-5


class CamOutput(NamedTuple):
    """The network's output for a batch.

    Attributes:
        features: the backbone's maps by stage name, (B, D, h, w) each.
        scores: class scores per pixel, (B, C, h, w), C without background.
        maps: activation maps, (B, C, h, w), at least 0.
        logits: tag scores per image, (B, C).
    """

    features: dict[str, Tensor]
    scores: Tensor
    maps: Tensor
    logits: Tensor


class CamNetwork(Network):
    """A backbone with a class head."""

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(backbone.channels["stage4"], classes, kernel_size=1, bias=False)
        nn.init.normal_(self.head.weight, std=0.01)

    @staticmethod
    def pool(scores: Tensor) -> Tensor:
        """Return tag logits (B, C) of class scores (B, C, h, w); a subclass may pool in another way."""
        return scores.mean(dim=(2, 3))

    def forward(self, image: Tensor) -> CamOutput:
        """Run the network on (B, 3, H, W) RGB in [0, 1]."""
        features = self.backbone(image)
        scores = self.head(features["stage4"]).float()  # mixed precision is too coarse for thresholds
        return CamOutput(features, scores, scores.relu(), self.pool(scores))

    def losses(self, image: Tensor, tags: Tensor) -> tuple[CamOutput, dict[str, Tensor]]:
        """Return the output for a batch, and the loss terms to sum; tags are (B, C) float 0 or 1."""
        output: CamOutput = self(image)
        return output, {"tags": tag_loss(output, tags)}


def tag_loss(output: CamOutput, tags: Tensor) -> Tensor:
    """Return the multilabel soft margin loss of the tag logits, a scalar; tags are (B, C) float 0 or 1."""
    return F.multilabel_soft_margin_loss(output.logits, tags)


def stretch(maps: Tensor) -> Tensor:
    """Scale each (B, K, h, w) map to [0, 1]; a flat map becomes 0.

    With m = relu(map) and e = 1e-5: relu(m - min - e) / (max - min + e).
    """
    maps = maps.relu()
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    return (maps - low - EPSILON).relu() / (high - low + EPSILON)
