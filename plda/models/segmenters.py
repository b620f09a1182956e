"""Segmentation networks: a backbone with a head that computes class scores per pixel."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plda.collectives import mean_divisor
from plda.data.images import VOID
from plda.models.backbones import Backbone, Network
from plda.models.lean import is_lean
from plda.models.saved import Architecture, Kind
from plda.models.tagger import TAGGER, Tagger, weigh_classes
from plda.vision import torchvision

heads = torchvision.models.segmentation


class DeepLabV2Head(nn.Module):
    """ASPP of DeepLab-v2 (Chen et al., TPAMI 2018): 3x3 convolutions at rates 6, 12, 18, 24, summed."""

    RATES = (6, 12, 18, 24)

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.branches: Sequence[nn.Conv2d] = nn.ModuleList(  # type: ignore[assignment]
            nn.Conv2d(channels, classes, kernel_size=3, padding=rate, dilation=rate) for rate in self.RATES
        )
        for branch in self.branches:
            nn.init.normal_(branch.weight, std=0.01)

    def forward(self, features: Tensor) -> Tensor:
        """Compute class scores: (B, D, h, w) to (B, C, h, w)."""
        if is_lean(features):
            return self._by_taps(features)
        scores: Tensor = sum(branch(features) for branch in self.branches)  # type: ignore[assignment]
        return scores

    def _by_taps(self, features: Tensor) -> Tensor:
        """Compute the same with one 1x1 convolution for all taps of all kernels, then shift its outputs.

        oneDNN takes five times as long for the backward pass of convolutions to so few channels. Taps that
        are outside the map for all pixels are left out.
        """
        height, width = features.shape[-2:]
        taps = [
            (dy, dx, branch.weight[:, :, i, j])
            for branch, rate in zip(self.branches, self.RATES, strict=True)
            for i, dy in enumerate((-rate, 0, rate))
            for j, dx in enumerate((-rate, 0, rate))
            if abs(dy) < height and abs(dx) < width
        ]
        kernels = torch.cat([weight for _, _, weight in taps])[:, :, None, None]
        scores = sum(branch.bias[:, None, None] for branch in self.branches if branch.bias is not None)
        made = F.conv2d(features, kernels).chunk(len(taps), dim=1)
        for (dy, dx, _), part in zip(taps, made, strict=True):
            scores = scores + F.pad(part, (-dx, dx, -dy, dy))
        assert isinstance(scores, Tensor)
        return scores


class LrasppHead(nn.Module):
    """torchvision's LR-ASPP head (Howard et al., ICCV 2019) on stride-8 and last features."""

    def __init__(self, low_channels: int, high_channels: int, classes: int) -> None:
        super().__init__()
        self.lraspp = heads.lraspp.LRASPPHead(low_channels, high_channels, classes, inter_channels=128)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Compute class scores: (B, L, h', w') and (B, D, h, w) to (B, C, h', w')."""
        scores: Tensor = self.lraspp({"low": low, "high": high})
        return scores


class Segmenter(Network):
    """A backbone with a head; the scores have the size of the image.

    Args:
        backbone: see `plda.models.backbones`.
        head: "deeplabv2", "deeplabv3" (torchvision's, rates 12, 24, 36) or "lraspp".
        classes: number of classes, including background.
        tagger: classifier that weighs the classes of object pixels, see `plda.models.tagger`; None: none.
    """

    def __init__(self, backbone: Backbone, head: str, classes: int, tagger: Tagger | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.tagger = tagger
        high = backbone.channels["stage4"]
        match head:
            case "deeplabv2":
                self.head: nn.Module = DeepLabV2Head(high, classes)
            case "deeplabv3":
                self.head = heads.deeplabv3.DeepLabHead(high, classes)
            case "lraspp":
                self.head = LrasppHead(backbone.channels["stage2"], high, classes)
            case _:
                raise ValueError(f"head: must be deeplabv2, deeplabv3 or lraspp, got {head!r}")

    @property
    def bias(self) -> Tensor:
        """(C,), added to the class scores of every pixel."""
        match self.head:
            case DeepLabV2Head():
                bias = self.head.branches[0].bias
            case LrasppHead():
                bias = self.head.lraspp.low_classifier.bias
            case _:
                bias = self.head[-1].bias  # type: ignore[index]
        assert isinstance(bias, Tensor)
        return bias

    def forward(self, image: Tensor) -> Tensor:
        """Compute class scores (B, C, H, W), background first, for (B, 3, H, W) RGB in [0, 1]."""
        features = self.backbone(image)
        if isinstance(self.head, LrasppHead):
            scores = self.head(features["stage2"], features["stage4"])
        else:
            scores = self.head(features["stage4"])
        scores = scores.float()  # also in mixed precision: probabilities need full precision
        if self.tagger is not None:
            scores = weigh_classes(scores, self.tagger(image))
        return F.interpolate(scores, image.shape[-2:], mode="bilinear", align_corners=False)


def _segmenter(backbone: Backbone, architecture: Architecture) -> Segmenter:
    tagger = None if architecture.tagger is None else TAGGER.build(architecture.tagger)
    return Segmenter(backbone, architecture.head, len(architecture.classes), tagger)


SEGMENTER = Kind("segmenter", _segmenter)


def mask_loss(scores: Tensor, mask: Tensor) -> Tensor:
    """Return the mean cross-entropy over the pixels that have a class; 0 if a batch has no such pixel.

    Args:
        scores: (B, C, H, W).
        mask: (B, H, W) int64, VOID for pixels without a class.
    """
    total = F.cross_entropy(scores, mask, ignore_index=VOID, reduction="sum")
    return total / mean_divisor((mask != VOID).sum())


class MaskLearner(nn.Module):
    """The training module of a segmentation network: takes a batch and returns losses.

    Attributes:
        network: the network, which is saved after training.
    """

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: dict[str, Tensor], _progress: float) -> dict[str, Tensor]:
        """Return `loss`. A batch has `image` and `mask`."""
        return {"loss": mask_loss(self.network(batch["image"]), batch["mask"])}
