"""What a CAM network takes for source and target, seen on the same few images after every epoch.

Nothing of `plda.scoring` is used: a change of a score must not train the network again.

PLDA rests on a claim about the data: that source pixels (METHOD: PLDA, step 1) are the telling part of an
object and target pixels the rest of it, and that the network's features differ between the two. Both can be
looked at: how many of the pixels lie on their object (where there are true masks; nothing is chosen by them),
and the proxy A-distance between the two sets of features (Ben-David et al., Machine Learning 2010),

    d_A = 2 (1 - 2 e),   e = the error of a linear classifier between the domains, on images it has not seen:

0 where they cannot be told apart, 2 where they always can.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plda.adaptation.domains import SOURCE, TARGET, confident, domain_labels, erase
from plda.data.archive import Archive
from plda.data.classes import class_ids
from plda.data.datasets import tag_vector
from plda.data.images import VOID
from plda.data.index import Entry
from plda.data.loading import load_image, load_true_mask
from plda.data.transforms import resize, unit
from plda.models.cam import CamOutput, tag_loss

DOMAINS = {"source": SOURCE, "target": TARGET}
RIDGE = 1e-3


class Inspection:
    """Looks at a network through a few images of each split; call it with the network."""

    def __init__(
        self,
        entries: Sequence[Entry],
        archive: Archive,
        classes: Sequence[str],
        *,
        count: int,
        side: int,
        threshold: float,
    ) -> None:
        """Choose the images.

        Args:
            entries: of all splits.
            archive: holds the images, and the true masks where there are any.
            classes: class names, background first.
            count: how many images with tags of each split, evenly spread; 0: none.
            side: an image is looked at with its long side so many pixels long.
            threshold: tau, see `plda.adaptation.domains`.
        """
        self._splits = {
            split: evenly([e for e in entries if e.split == split and e.tags and e.known], count)
            for split in ("train", "val")
        }
        self._archive, self._classes, self._side, self._threshold = archive, classes, side, threshold

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """What is seen now, its names beginning with the split.

        `tags`: loss on the image tags. `source`, `target`: share of pixels; with `_precision`: how many of
        them lie on their class, `_recall`: how much of the classes they cover. `gap`: d_A. All but `tags` and
        `gap` in percent; what cannot be known (no true masks) is left out.
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
            tags = tag_vector(entry.tags, self._classes).to(device)[None]
            output: CamOutput = network(image)
            source = confident(output.maps, tags, self._threshold)
            second: CamOutput = network(erase(image, source, network.backbone.mean))  # type: ignore[arg-type,union-attr]
            target = confident(second.maps, tags, self._threshold)
            labels = domain_labels(source, target)
            losses.append(float(tag_loss(output, tags)))
            features.append(domain_features(output.features["stage4"], labels))
            truth = load_true_mask(self._archive, entry.mask) if entry.mask else None
            counts.add(labels[0, tags[0] > 0].cpu(), class_ids(entry.tags, self._classes), truth)
        return {"tags": sum(losses) / len(losses), **counts.scores(), "gap": proxy_a_distance(features)}

    def _image(self, entry: Entry) -> Tensor:
        factor = self._side / max(entry.width, entry.height)
        size = [max(1, round(side * factor)) for side in (entry.height, entry.width)]
        return resize(unit(load_image(self._archive, entry))[None], size)


class DomainCounts:
    """Counts of pixels by domain, over many images."""

    def __init__(self) -> None:
        self._pixels = self._true = 0  # of all maps; on objects, where the truth is known
        self._share = dict.fromkeys(DOMAINS, 0)  # pixels of a domain, whatever the class
        self._given = dict.fromkeys(DOMAINS, 0)  # the same by class, where the truth is known
        self._hits = dict.fromkeys(DOMAINS, 0)  # of these, those on their class

    def add(self, labels: Tensor, ids: Sequence[int], truth: np.ndarray | None) -> None:
        """Count one image.

        Args:
            labels: (K, h, w), see `domain_labels`, for the K classes that are present.
            ids: the K class ids.
            truth: (H, W) class ids with VOID, if they are known.
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
        """In percent: the share of pixels of each domain; its precision and recall where these are known."""
        seen = {}
        for name in DOMAINS:
            seen[name] = _percent(self._share[name] / max(self._pixels, 1))
            if self._true:
                seen[f"{name}_precision"] = _percent(self._hits[name] / max(self._given[name], 1))
                seen[f"{name}_recall"] = _percent(self._hits[name] / self._true)
        return seen


def domain_features(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The features of the pixels that have a domain, whatever the class.

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
    """d_A of what `domain_features` gives for each image; nan where a half of the images lacks a domain.

    The classifier is linear least squares on every other image, both domains weighing the same; its error is
    the mean of the two domains' errors on the images between.
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
    """Up to `count` of the entries, at even distances."""
    count = min(count, len(entries))
    return [entries[i * len(entries) // count] for i in range(count)]
