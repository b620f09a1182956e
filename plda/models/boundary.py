"""The boundary network: predicts where objects end, from the features of a frozen backbone.

As in the edge branch of IRNet (Ahn et al., CVPR 2019): the features of each stage are reduced to 32 channels,
resized to stride 4 and concatenated; a last convolution predicts the boundary.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plda.models.backbones import Backbone, Network
from plda.models.saved import Kind

CHANNELS = 32  # for each stage
GROUPS = 4
STRIDE = 4


class BoundaryNetwork(Network):
    """A frozen backbone with a boundary head."""

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
        """Compute boundary logits (B, 1, h, w), float32 at stride 4, for (B, 3, H, W) RGB in [0, 1]."""
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
        """Set the mode as `nn.Module.train` does; the backbone stays in evaluation mode, without dropout."""
        super().train(mode)
        self.backbone.eval()
        return self


BOUNDARY = Kind("boundary", lambda backbone, _: BoundaryNetwork(backbone))
