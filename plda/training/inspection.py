"""Source and target pixels of a CAM network, measured on the same few images after every epoch.

This module does not use `plda.scoring`: a change of a score must not train the network again.

PLDA assumes that source pixels (docs/method.md, PLDA, step 1) are the discriminative part of an object, that
target pixels are the rest of it, and that the network's features differ between the two. Both can be
measured: the fraction of the pixels that lie on their object (if true masks exist; they are not used to
select anything), and the proxy A-distance between the two sets of features (Ben-David et al., Machine
Learning 2010),

    d_A = 2 (1 - 2 e),   e = the error of a linear classifier between the domains, on held-out images:

0 if the domains cannot be separated, 2 if they always can.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plda.adaptation.domains import SOURCE, TARGET, confident, domain_labels, erase
from plda.data.data_set import DataSet
from plda.data.datasets import tag_vector
from plda.data.images import VOID
from plda.data.index import Entry
from plda.data.transforms import resize, unit
from plda.models.cam import CamOutput, tag_loss

DOMAINS = {"source": SOURCE, "target": TARGET}
RIDGE = 1e-3


class Inspection:
    """Measures a network on a few images of each split; call it with the network."""

    def __init__(self, data: DataSet, *, count: int, side: int, threshold: float) -> None:
        """Choose the images.

        Args:
            data: the images, and the true masks if they exist.
            count: number of images with tags per split, evenly spread; 0: none.
            side: long side to which images are resized, pixels.
            threshold: tau, see `plda.adaptation.domains`.
        """
        self._splits = {
            split: evenly([e for e in data.split(split) if e.tags and e.known], count)
            for split in ("train", "val")
        }
        self._data, self._side, self._threshold = data, side, threshold

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """Return the metrics of this epoch, keyed `<split>_<name>`.

        `tags`: loss on the image tags. `source`, `target`: fraction of all pixels; with `_precision`:
        fraction of these that lie on their class; with `_recall`: fraction of the class that they cover.
        `gap`: d_A. All except `tags` and `gap` are in percent. Metrics that need true masks are left out if
        none exist.
        """
        return {
            f"{split}_{name}": value
            for split, entries in self._splits.items()
            if entries
            for name, value in self._look(network, entries).items()
        }

    @torch.no_grad()
    def _look(self, network: nn.Module, entries: Sequence[Entry]) -> dict[str, float]:
        device = next(network.parameters()).device
        losses, counts, features = [], DomainCounts(), []
        for entry in entries:
            image = self._image(entry).to(device)
            tags = tag_vector(entry.tags, self._data.classes).to(device)[None]
            output: CamOutput = network(image)
            source = confident(output.maps, tags, self._threshold)
            second: CamOutput = network(erase(image, source, network.backbone.mean))  # type: ignore[arg-type,union-attr]
            target = confident(second.maps, tags, self._threshold)
            labels = domain_labels(source, target)
            losses.append(float(tag_loss(output, tags)))
            features.append(domain_features(output.features["stage4"], labels))
            truth = self._data.true_mask(entry) if entry.mask else None
            counts.add(labels[0, tags[0] > 0].cpu(), self._data.ids(entry), truth)
        return {"tags": sum(losses) / len(losses), **counts.scores(), "gap": proxy_a_distance(features)}

    def _image(self, entry: Entry) -> Tensor:
        factor = self._side / max(entry.size)
        size = [max(1, round(side * factor)) for side in entry.size]
        return resize(unit(self._data.image(entry))[None], size)


class DomainCounts:
    """Pixel counts by domain, over many images."""

    def __init__(self) -> None:
        self._pixels = self._true = 0  # all pixels; object pixels of the true masks
        self._share = dict.fromkeys(DOMAINS, 0)  # pixels of a domain, of any class
        self._given = dict.fromkeys(DOMAINS, 0)  # pixels of a domain by class, if a true mask exists
        self._hits = dict.fromkeys(DOMAINS, 0)  # pixels of a domain that lie on their class

    def add(self, labels: Tensor, ids: Sequence[int], truth: np.ndarray | None) -> None:
        """Count one image.

        Args:
            labels: (K, h, w), see `domain_labels`, for the K classes that are present.
            ids: the K class ids.
            truth: (H, W) class ids with VOID, or None if unknown.
        """
        self._pixels += labels[0].numel()
        for name, domain in DOMAINS.items():
            self._share[name] += int((labels == domain).any(dim=0).sum())
        if truth is None:
            return
        full = F.interpolate(labels[None].float(), truth.shape, mode="nearest")[0].numpy()
        for class_id, place in zip(ids, full, strict=True):
            on_class = truth == class_id
            self._true += int(on_class.sum())
            for name, domain in DOMAINS.items():
                self._given[name] += int(((place == domain) & (truth != VOID)).sum())
                self._hits[name] += int(((place == domain) & on_class).sum())

    def scores(self) -> dict[str, float]:
        """Return percentages: the pixels of each domain; its precision and recall if true masks exist."""
        seen = {}
        for name in DOMAINS:
            seen[name] = _percent(self._share[name] / max(self._pixels, 1))
            if self._true:
                seen[f"{name}_precision"] = _percent(self._hits[name] / max(self._given[name], 1))
                seen[f"{name}_recall"] = _percent(self._hits[name] / self._true)
        return seen


def domain_features(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the features of the pixels that have a domain, for any class.

    Args:
        features: (1, D, h, w).
        labels: (1, C, h, w), see `domain_labels`.

    Returns:
        (N, D) float64, and (N,) float64: 1 for source, -1 for target.
    """
    source, target = ((labels[0] == domain).any(dim=0) for domain in (SOURCE, TARGET))
    rows = features[0].movedim(0, -1)
    either = source | target
    return rows[either].cpu().double(), source[either].cpu().double() * 2 - 1


def proxy_a_distance(images: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Return d_A of the `domain_features` of each image; nan if a half of the images lacks a domain.

    The classifier is linear least squares on every other image, with equal weight for both domains; its error
    is the mean of the two domains' errors on the other images.
    """
    if len(images) < 2:
        return math.nan
    (known, sides), (unseen, true_sides) = (
        (torch.cat([x for x, _ in half]), torch.cat([d for _, d in half]))
        for half in (images[::2], images[1::2])
    )
    if not all((d == side).any() for d in (sides, true_sides) for side in (1, -1)):
        return math.nan
    weights = torch.where(sides > 0, 0.5 / (sides > 0).sum(), 0.5 / (sides < 0).sum())[:, None]
    centre = (weights * known).sum(dim=0)
    spread = (weights * (known - centre).square()).sum(dim=0).sqrt() + 1e-12
    x = (known - centre) / spread
    gram = x.T @ (weights * x) + RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    direction = torch.linalg.solve(gram, x.T @ (weights[:, 0] * sides))
    wrong = ((unseen - centre) / spread @ direction).sign() != true_sides
    error = sum(float(wrong[true_sides == side].double().mean()) for side in (1, -1)) / 2
    return round(2 * (1 - 2 * error), 4)


def _percent(share: float) -> float:
    return round(100 * share, 2)


def evenly(entries: Sequence[Entry], count: int) -> list[Entry]:
    """Return up to `count` of the entries, evenly spaced."""
    count = min(count, len(entries))
    return [entries[i * len(entries) // count] for i in range(count)]
