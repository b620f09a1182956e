"""The baseline `cam`: a classifier whose class scores are a map (Zhou et al., CVPR 2016; METHOD: Baselines).

Tag logits are the global average of the score map of a bias-free 1x1 convolution; the loss is multilabel soft
margin; the class activation map is relu(scores), for the classes that are tagged.
"""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from plda.models.backbones import Backbone, Network

EPSILON = 1e-5


class CamOutput(NamedTuple):
    """What the network says of a batch.

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
    """Backbone and class head."""

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(backbone.channels["stage4"], classes, kernel_size=1, bias=False)
        nn.init.normal_(self.head.weight, std=0.01)

    def forward(self, image: Tensor) -> CamOutput:
        """What it says of (B, 3, H, W) RGB in [0, 1]."""
        features = self.backbone(image)
        scores = self.head(features["stage4"]).float()  # mixed precision is too coarse for thresholds
        return CamOutput(features, scores, scores.relu(), scores.mean(dim=(2, 3)))

    def losses(self, image: Tensor, tags: Tensor) -> tuple[CamOutput, dict[str, Tensor]]:
        """What it says of a batch, and the scalars whose sum is minimised; tags are (B, C) float 0 or 1."""
        output: CamOutput = self(image)
        return output, {"tags": tag_loss(output, tags)}


def tag_loss(output: CamOutput, tags: Tensor) -> Tensor:
    """Multilabel soft margin of the tag logits against `tags`, (B, C) float 0 or 1; a scalar."""
    return F.multilabel_soft_margin_loss(output.logits, tags)


def stretch(maps: Tensor) -> Tensor:
    """Each (B, K, h, w) map's range above 0, less 1e-5 at its lower end, becomes [0, 1]; a flat map is 0."""
    maps = maps.relu()
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    return (maps - low - EPSILON).relu() / (high - low + EPSILON)
