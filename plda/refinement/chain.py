"""A chain of refinements over a training set (docs/method.md, From maps to masks).

PAMR and the random walk work on maps of a quarter of the image's side, on several images of one size at a
time; regions give maps of half its side. A dense CRF works at the image's size, on the CPU, with one image
per process. It has background as a label, so it is the last step and needs the background score of its input.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from plda.data.data_set import DataSet
from plda.data.index import Entry, by_size, evenly_spread
from plda.data.transforms import resize
from plda.errors import InputError
from plda.masks.cams import Cams, normalise_maps
from plda.masks.seeds import Strengths, full_size
from plda.models.inference import Inference, multi_scale
from plda.processes import in_processes
from plda.refinement.crf import crf
from plda.refinement.guided_filter import guided_filter
from plda.refinement.pamr import pamr
from plda.refinement.walk import random_walk

SAMPLE = 500  # images for the automatic background score: enough for a stable histogram
TOGETHER = 8  # maximum number of images of one size
DECIDED = 0.5  # background score of a CRF's maps, which include background

Step = Callable[[Tensor, Tensor], Tensor]
"""(B, 3, H, W) uint8 RGB and the images' (B, K, h, w) maps in [0, 1], to refined maps."""

COLOURS: dict[str, Callable[..., Tensor]] = {"pamr": pamr, "guided_filter": guided_filter}
"""Refinements by colours alone: (B, 3, h, w) RGB and (B, K, h, w) maps in [0, 1], to refined maps."""


class Refined(NamedTuple):
    """One image's maps, before and after each step of a chain.

    Attributes:
        entry: the image.
        image: (3, H, W) uint8 RGB.
        raw: (K, h, w) in [0, 1], one for each tag.
        maps: maps (K, h, w) in [0, 1] after each step, by step name, in order.
    """

    entry: Entry
    image: Tensor
    raw: Tensor
    maps: dict[str, Tensor]

    @property
    def last(self) -> Tensor:
        """The maps after the last step."""
        *_, last = self.raw, *self.maps.values()
        return last


def colour_step(name: str, settings: Mapping[str, Any]) -> Step:
    """Return the refinement `name` of COLOURS as a step."""

    def step(images: Tensor, maps: Tensor) -> Tensor:
        return COLOURS[name](resize(images / 255, maps.shape[-2:]), maps, **settings)

    return step


def walk_step(network: Inference, *, radius: float, beta: float, steps: int) -> Step:
    """Return the random walk within the boundaries that `network` predicts, see `plda.refinement.walk`."""

    def step(images: Tensor, maps: Tensor) -> Tensor:
        boundary = torch.stack([boundaries(network, image, maps.shape[-2:]) for image in images])
        return normalise_maps(random_walk(maps, boundary, radius=radius, beta=beta, steps=steps))

    return step


def boundaries(network: Inference, image: Tensor, size: Sequence[int]) -> Tensor:
    """Predict boundaries of a (3, H, W) uint8 image, averaged with its mirror image: (1, *size) in [0, 1]."""
    return multi_scale(network, image[None], size, scales=[1.0], flip=True)[0].sigmoid()


class Group(NamedTuple):
    """Images with the same size and number of tags.

    Attributes:
        entries: the images.
        images: (B, 3, H, W) uint8 RGB.
        maps: (B, K, h, w) in [0, 1], one for each tag.
    """

    entries: Sequence[Entry]
    images: Tensor
    maps: Tensor


def groups(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Return the entries in groups that are refined together."""
    return by_size(entries, TOGETHER, tags=True)


def load_group(data: DataSet, cams: Cams, entries: Sequence[Entry]) -> Group:
    """Read the images and maps of one of `groups`."""
    return Group(entries, data.images(entries), torch.stack([cams.read(entry.key) for entry in entries]))


@torch.no_grad()
def refined(group: Group, steps: Mapping[str, Step], device: torch.device) -> list[Refined]:
    """Return the maps of a group after each of `steps`."""
    images, maps = group.images.to(device), group.maps.to(device)
    after = {}
    for name, step in steps.items():
        maps = step(images, maps)
        after[name] = maps.cpu()
    return [
        Refined(entry, group.images[i], group.maps[i], {name: maps[i] for name, maps in after.items()})
        for i, entry in enumerate(group.entries)
    ]


def with_crf(
    images: Iterable[Refined], background: float, settings: Mapping[str, Any], processes: int
) -> Iterator[Refined]:
    """Add a dense CRF as the last step; its maps have the image's size and the background score DECIDED.

    Args:
        images: with the maps of all preceding steps.
        background: background score of the last maps.
        settings: see `plda.refinement.crf.mean_field`.
        processes: number of parallel processes.
    """
    waiting: deque[Refined] = deque()

    def arguments() -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
        for image in images:
            waiting.append(image)
            yield (
                image.image.permute(1, 2, 0).numpy(),
                full_size(image.last, image.entry.size).numpy(),
                background,
            )

    for maps in in_processes(partial(crf, **settings), arguments(), processes):
        image = waiting.popleft()
        yield image._replace(maps={**image.maps, "crf": torch.from_numpy(maps)})


def background_scores_of(
    chain: Callable[[Sequence[Entry]], Iterable[Refined]],
    entries: Sequence[Entry],
    names: Sequence[str],
    score: float | Literal["auto"],
) -> tuple[dict[str, float], str]:
    """Return the background score of the raw maps and of the maps after each step.

    Args:
        chain: refines the images of some entries.
        entries: the training set.
        names: names of the raw maps and of the maps after each step.
        score: a fixed score; or "auto": for each, Otsu's threshold on evenly spread images with tags, without
            pixel labels.

    Returns:
        The scores by name, and how they were chosen, in words.

    Raises:
        InputError: the score is "auto", but the raw maps are flat.
    """
    if score != "auto":
        return dict.fromkeys(names, score), "params"
    tagged = [entry for entry in entries if entry.tags]
    sample = evenly_spread(tagged, SAMPLE)
    histograms = {name: Strengths() for name in names}
    for image in chain(sample):
        for histogram, maps in zip(histograms.values(), [image.raw, *image.maps.values()], strict=True):
            histogram.add(maps)
    if next(iter(histograms.values())).flat:
        raise InputError(
            f"background_score: auto: the maps of all {len(sample)} sampled images are flat: the "
            "classifier does not respond to their tags; check that its loss fell (train_cam/history.csv)"
        )
    scores = {name: histogram.otsu() for name, histogram in histograms.items()}
    return scores, f"Otsu's threshold on the maps of {len(sample)} images, no pixel labels"
