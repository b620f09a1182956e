"""The baseline `seam`: two views of an image that must agree, and maps refined by how alike the pixels are.

Wang et al., "Self-supervised Equivariant Attention Mechanism" (CVPR 2020; METHOD: Baselines). Pixel
correlation turns the class scores s, detached, into refined maps r: for pixels p, q, and 0 for background,

    m = relu(s) / (its maximum in the image + 1e-5), 0 where another class is higher;   m_0 = 1 - max m
    a_pq = relu(ĝ_p · ĝ_q) / (1e-5 + Σ_p relu(ĝ_p · ĝ_q)),   ĝ = g / (|g| + 1e-5)
    r_q = Σ_p m_p a_pq

with g a convolution of the image and of two stages' features; the stages learn nothing from it.
View 1 is the image, view 2 the image at scale 0.3. s̃ and r̃ are s and r stretched to [0, 1], at the size of
view 2, for the tagged classes y (and background) only. The loss is the sum of

    tags          (L_cls1 + L_cls2) / 2, multilabel soft margin of the mean scores
    minimum       (L_min1 + L_min2) / 2, L_min the mean of the lowest quarter of max_c y_c r_c
    equivariance  L_er = mean |s̃1 - s̃2|
    cross         L_ecr = mean of the highest fifth of |top(s̃2) - r̃1|, plus the same with the views swapped

where top(s̃), detached, comes from s̃ as m and m_0 come from the divided scores. Only `tags` and `equivariance`
teach the backbone; the others teach g.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from plda.data.transforms import LEAST_SIDE, full_precision, resize
from plda.models.backbones import Backbone, Network
from plda.models.cam import EPSILON, CamOutput, stretch, tag_loss

VIEW = 0.3  # scale of the second view


def strongest(maps: Tensor) -> Tensor:
    """Only each pixel's highest class, and what it leaves to background.

    Args:
        maps: (B, C, h, w) in [0, 1].

    Returns:
        (B, C + 1, h, w) in [0, 1], background first; all classes that are equally high are kept.
    """
    highest = maps.amax(dim=1, keepdim=True)
    return torch.cat([1 - highest, maps * (maps == highest)], dim=1)


@torch.no_grad()
def prepared(scores: Tensor) -> Tensor:
    """What pixel correlation spreads: m of (B, C + 1, h, w) scores, of their shape, in [0, 1], detached."""
    maps = scores[:, 1:].relu()  # the score of background plays no part
    return strongest(maps / (maps.amax(dim=(2, 3), keepdim=True) + EPSILON))


def pixel_correlation(maps: Tensor, g: Tensor) -> Tensor:
    """Each pixel's maps become a mean over all pixels, weighted by how alike their g are.

    Args:
        maps: (B, K, h, w).
        g: (B, G, h, w).

    Returns:
        (B, K, h, w), within the range of the maps and 0.
    """
    g = g.flatten(2)
    g = g / (torch.linalg.vector_norm(g, dim=1, keepdim=True) + EPSILON)
    alike = (g.transpose(1, 2) @ g).relu()  # (B, hw, hw)
    # dividing the product instead of the columns spares one more tensor of that size
    refined = maps.flatten(2) @ alike / (alike.sum(dim=1, keepdim=True) + EPSILON)
    return refined.reshape(maps.shape)


def comparable(maps: Tensor, tags: Tensor, size: Sequence[int]) -> Tensor:
    """s̃ or r̃: (B, K, h, w) maps and (B, K) float tags to (B, K, *size), in [0, 1]."""
    return resize(stretch(maps), size) * tags[:, :, None, None]


def minimum_loss(refined: Tensor, tags: Tensor) -> Tensor:
    """L_min of one view, a scalar: a quarter of the pixels show no class.

    Args:
        refined: (B, C, h, w), r without background.
        tags: (B, C) float 0 or 1.
    """
    highest = (refined * tags[:, :, None, None]).amax(dim=1).flatten(1)
    lowest = highest.topk(max(1, highest.shape[1] // 4), dim=1, largest=False).values
    return lowest.relu().mean()


def equivariance_loss(first: Tensor, second: Tensor) -> Tensor:
    """L_er, a scalar, of s̃ of the two views, (B, C, h, w) each."""
    return (first - second).abs().mean()


def cross_loss(maps: Tensor, refined: Tensor) -> Tensor:
    """Half of L_ecr, a scalar: the refined maps of one view are what the other one's scores say.

    Args:
        maps: (B, C, h, w), s̃ of one view; it gets no gradient.
        refined: (B, C + 1, h, w), r̃ of the other, background first.
    """
    gaps = (strongest(maps.detach()) - refined).abs().flatten(1)
    return gaps.topk(max(1, gaps.shape[1] // 5), dim=1).values.mean()


class View(NamedTuple):
    """What the network says of a view.

    Attributes:
        output: of which scores and maps are without background.
        refined: r, (B, C + 1, h, w) float32 in [0, 1], background first.
    """

    output: CamOutput
    refined: Tensor


class SeamNetwork(Network):
    """Backbone, class head and the convolutions that g comes from."""

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        channels = backbone.channels
        self.head = nn.Conv2d(channels["stage4"], classes + 1, kernel_size=1, bias=False)
        self.narrow2 = nn.Conv2d(channels["stage2"], 64, kernel_size=1, bias=False)
        self.narrow3 = nn.Conv2d(channels["stage3"], 128, kernel_size=1, bias=False)
        self.correlation = nn.Conv2d(3 + 64 + 128, 192, kernel_size=1, bias=False)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.kaiming_normal_(self.narrow2.weight)
        nn.init.kaiming_normal_(self.narrow3.weight)
        # only g's direction counts, so the weights' size is how slowly they turn; this is the published one
        nn.init.xavier_uniform_(self.correlation.weight, gain=4)

    def forward(self, image: Tensor) -> CamOutput:
        """What it says of (B, 3, H, W) RGB in [0, 1]; its maps are refined, in [0, 1]."""
        return self.look(image).output

    def look(self, image: Tensor) -> View:
        """The same as `forward`, and what the losses need besides."""
        features = self.backbone(image)
        scores = self.head(features["stage4"]).float()  # mixed precision is too coarse for thresholds
        with full_precision(image):  # nor would affinities keep their digits
            size = scores.shape[-2:]
            inputs = self.backbone.normalise(image), features["stage2"].detach(), features["stage3"].detach()
            colours, fine, coarse = (resize(x.float(), size) for x in inputs)
            likeness = [colours, self.narrow2(fine).relu(), self.narrow3(coarse).relu()]
            refined = pixel_correlation(prepared(scores), self.correlation(torch.cat(likeness, dim=1)))
        scores = scores[:, 1:]
        return View(CamOutput(features, scores, refined[:, 1:], scores.mean(dim=(2, 3))), refined)

    def losses(self, image: Tensor, tags: Tensor) -> tuple[CamOutput, dict[str, Tensor]]:
        """What it says of a batch, and the scalars whose sum it is trained on; (B, C) tags, float 0 or 1."""
        # in mixed precision the image may come in bfloat16, which knows no anti-aliasing on a CPU
        small = resize(image.float(), [max(LEAST_SIDE, round(VIEW * side)) for side in image.shape[-2:]])
        first, second = views = self.look(image), self.look(small)
        with full_precision(image):
            size = second.refined.shape[-2:]
            present = torch.cat([torch.ones_like(tags[:, :1]), tags], dim=1)
            cls1, cls2 = (tag_loss(view.output, tags) for view in views)
            min1, min2 = (minimum_loss(view.output.maps, tags) for view in views)
            s1, s2 = (comparable(view.output.scores, tags, size) for view in views)
            r1, r2 = (comparable(view.refined, present, size) for view in views)
            return first.output, {
                "tags": (cls1 + cls2) / 2,
                "minimum": (min1 + min2) / 2,
                "equivariance": equivariance_loss(s1, s2),
                "cross": cross_loss(s2, r1) + cross_loss(s1, r2),
            }
