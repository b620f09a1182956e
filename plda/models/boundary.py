"""The boundary network: where objects end, from the features of a backbone that does not learn with it.

As the edge branch of IRNet (Ahn et al., CVPR 2019): each stage's features are narrowed to 32 channels,
brought to stride 4 and put together, and a last convolution tells the boundary from all of them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plda.models.backbones import Backbone, Network
from plda.models.saved import Kind

CHANNELS = 32  # of each stage's share
GROUPS = 4
STRIDE = 4


class BoundaryNetwork(Network):
    """Backbone, whose weights stay as they are, and boundary head."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.narrow = nn.ModuleDict(
            {
                stage: nn.Sequential(
                    nn.Conv2d(channels, CHANNELS, kernel_size=1, bias=False),
                    nn.GroupNorm(GROUPS, CHANNELS),
                )
                for stage, channels in backbone.channels.items()
            }
        )
        self.head = nn.Conv2d(CHANNELS * len(self.narrow), 1, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] to the boundary's logits, (B, 1, h, w) float32 at stride 4."""
        with torch.no_grad():
            features = self.backbone(image)
        size = features["stage1"].shape[-2:]
        if self.backbone.strides["stage1"] > STRIDE:
            size = torch.Size(-(-side // STRIDE) for side in image.shape[-2:])
        parts = [
            F.interpolate(narrow(features[stage]), size, mode="bilinear", align_corners=False).relu()
            for stage, narrow in self.narrow.items()
        ]
        logits: Tensor = self.head(torch.cat(parts, dim=1)).float()
        return logits

    def train(self, mode: bool = True) -> "BoundaryNetwork":
        """As for any module, but the backbone stays in evaluation mode: no dropout in what the head sees."""
        super().train(mode)
        self.backbone.eval()
        return self


BOUNDARY = Kind("boundary", lambda backbone, _: BoundaryNetwork(backbone))
