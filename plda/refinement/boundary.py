"""Training of a boundary network on pairs of confident pixels.

Ahn et al., CVPR 2019; docs/method.md, From maps to masks.

Confident pixels have a class. Two of them, less than a radius apart, should have affinity 1 (see
`plda.refinement.affinity`) if their classes are equal, else 0. With P+ the pairs inside one object class, P0
those inside background and P- those of different classes,

    L = 1/3 (mean over P+ of -log a  +  mean over P0 of -log a  +  mean over P- of -log(1 - a)).

No boundary labels are used: a boundary is where affinities must be low.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import tee

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plda.collectives import mean_divisor
from plda.data.images import VOID
from plda.data.index import Entry
from plda.masks.seeds import seeds
from plda.models.boundary import BoundaryNetwork
from plda.refinement.affinity import affinities_of, offsets
from plda.refinement.chain import DECIDED, Refined

EPSILON = 1e-5  # added inside the logarithms


def confident_masks(
    images: Iterable[Refined],
    ids_of: Callable[[Entry], Sequence[int]],
    *,
    foreground: float,
    background: float,
    with_crf: Callable[[Iterable[Refined], float], Iterable[Refined]] | None = None,
) -> Iterator[tuple[Entry, Tensor]]:
    """Yield the class ids of each image's confident pixels.

    Args:
        images: with the maps of all preceding refinements.
        ids_of: returns the class ids of an entry's maps.
        foreground: background score; a pixel whose map exceeds it has the map's class.
        background: background score, at most `foreground`; a pixel whose maps do not exceed it is background.
            Pixels between the two scores are VOID.
        with_crf: function that adds a CRF, called once with each score, see `plda.refinement.chain`.

    Yields:
        An image, and (h, w) uint8 at the size of its raw maps.
    """

    def look(images: Iterable[Refined], score: float) -> Iterator[tuple[Refined, Tensor]]:
        for image in with_crf(images, score) if with_crf else images:
            yield image, seeds(image.last, ids_of(image.entry), DECIDED if with_crf else score)

    first, second = tee(images)
    for (image, strict), (_, lax) in zip(look(first, foreground), look(second, background), strict=True):
        sure = strict.masked_fill((strict == 0) & (lax > 0), VOID)[None, None]
        small = F.interpolate(sure.float(), image.raw.shape[-2:], mode="nearest-exact")
        yield image.entry, small[0, 0].to(torch.uint8)


def pair_losses(boundary: Tensor, labels: Tensor, *, radius: float = 10) -> dict[str, Tensor]:
    """Return the three means of L by name; a mean without pairs is 0.

    Args:
        boundary: (B, h, w) float in [0, 1].
        labels: (B, h, w) integer class ids, VOID where not confident.
        radius: only pairs of pixels nearer than this are used.
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
    shares = dict(zip(names, mean_divisor(torch.stack(list(counts.values()))), strict=True))
    return {name: totals[name] / shares[name] for name in names}


class BoundaryLearner(nn.Module):
    """The training module of a boundary network: takes a batch and returns losses.

    Attributes:
        network: the network, which is saved after training.
    """

    def __init__(self, network: BoundaryNetwork, radius: float) -> None:
        super().__init__()
        self.network = network
        self._radius = radius

    def forward(self, batch: dict[str, Tensor], _progress: float) -> dict[str, Tensor]:
        """Return `loss` and its parts. A batch has `image` and `mask` (see `confident_masks`)."""
        boundary = self.network(batch["image"])[:, 0].sigmoid()
        # nearest: labels of stride 4 must not mix classes
        small = F.interpolate(batch["mask"][:, None].float(), boundary.shape[-2:], mode="nearest-exact")
        parts = pair_losses(boundary, small[:, 0].long(), radius=self._radius)
        return {"loss": torch.stack(list(parts.values())).mean(), **parts}
