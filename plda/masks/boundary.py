"""How a boundary network learns: from pairs of confident pixels (Ahn et al., CVPR 2019; METHOD: Random walk).

Confident pixels have a class; two of them, less than a radius apart, should have affinity 1 (see
`plda.masks.affinity`) if it is the same, else 0. With P+ the pairs inside one object class, P0 those inside
background and P- those of different classes,

    L = 1/3 (mean over P+ of -log a  +  mean over P0 of -log a  +  mean over P- of -log(1 - a)).

No boundary is ever shown: it is where affinities have to fall.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import tee

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plda.data.classes import class_ids
from plda.data.images import VOID
from plda.data.index import Entry
from plda.masks.affinity import affinities_of, offsets
from plda.masks.refinement import DECIDED, Refined
from plda.masks.seeds import seeds
from plda.models.boundary import BoundaryNetwork
from plda.shares import share

EPSILON = 1e-5  # within the logarithms


def confident_masks(
    images: Iterable[Refined],
    classes: Sequence[str],
    *,
    foreground: float,
    background: float,
    with_crf: Callable[[Iterable[Refined], float], Iterable[Refined]] | None = None,
) -> Iterator[tuple[Entry, Tensor]]:
    """Each image's class ids where they are sure.

    Args:
        images: after the refinements before.
        classes: class names, background first.
        foreground: what exceeds this background score is of its class.
        background: what does not exceed this one, not greater, is background; between the two is VOID.
        with_crf: what adds a CRF, run with either score, see `plda.masks.refinement`.

    Yields:
        An image, and (h, w) uint8 at the size of its raw maps.
    """

    def look(images: Iterable[Refined], score: float) -> Iterator[tuple[Refined, Tensor]]:
        for image in with_crf(images, score) if with_crf else images:
            ids = class_ids(image.entry.tags, classes)
            yield image, seeds(image.last, ids, DECIDED if with_crf else score)

    first, second = tee(images)
    for (image, strict), (_, lax) in zip(look(first, foreground), look(second, background), strict=True):
        sure = strict.masked_fill((strict == 0) & (lax > 0), VOID)[None, None]
        small = F.interpolate(sure.float(), image.raw.shape[-2:], mode="nearest-exact")
        yield image.entry, small[0, 0].to(torch.uint8)


def pair_losses(boundary: Tensor, labels: Tensor, *, radius: float = 10) -> dict[str, Tensor]:
    """The three means of L, by name; 0 for one without a pair.

    Args:
        boundary: (B, h, w) float in [0, 1].
        labels: (B, h, w) integer class ids, VOID where not confident.
        radius: pairs of pixels nearer than this count.
    """
    names = ("foreground", "background", "apart")
    totals = {name: boundary.new_zeros(()) for name in names}
    counts = {name: labels.new_zeros(()) for name in names}
    places = torch.arange(labels.numel(), device=labels.device).view_as(labels)
    flat, known = labels.flatten(), labels != VOID
    for offset in offsets(radius):
        if not offset.fits(boundary):
            continue
        starts = offset.first(places)[offset.first(known) & offset.second(known)]
        affinity = affinities_of(boundary, starts, offset)
        one, other = flat[starts], flat[starts + offset.dy * labels.shape[-1] + offset.dx]
        apart = one != other
        loss = -torch.log(torch.where(apart, 1 - affinity, affinity) + EPSILON)
        for name, pairs in (
            ("foreground", ~apart & (one > 0)),
            ("background", ~apart & (one == 0)),
            ("apart", apart),
        ):
            totals[name] = totals[name] + (loss * pairs).sum()
            counts[name] = counts[name] + pairs.sum()
    shares = dict(zip(names, share(torch.stack(list(counts.values()))), strict=True))
    return {name: totals[name] / shares[name] for name in names}


class BoundaryLearner(nn.Module):
    """A boundary network as it is trained: a batch in, losses out.

    Attributes:
        network: what is kept.
    """

    def __init__(self, network: BoundaryNetwork, radius: float) -> None:
        super().__init__()
        self.network = network
        self._radius = radius

    def forward(self, batch: dict[str, Tensor], _progress: float) -> dict[str, Tensor]:
        """`loss` and its parts. A batch has `image`, and confident `mask`, see `confident_masks`."""
        boundary = self.network(batch["image"])[:, 0].sigmoid()
        # nearest: labels of stride 4 must not mix classes
        small = F.interpolate(batch["mask"][:, None].float(), boundary.shape[-2:], mode="nearest-exact")
        parts = pair_losses(boundary, small[:, 0].long(), radius=self._radius)
        return {"loss": torch.stack(list(parts.values())).mean(), **parts}
