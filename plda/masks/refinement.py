"""A chain of refinements over a training set (METHOD: From maps to masks).

PAMR and the random walk work on maps of a quarter of the image's side, several images of one size at a time;
regions give maps of half its side.
A dense CRF works at the image's own size, on the CPU, one image to a process, and weighs background itself;
so it comes last, and is told the background score of the maps that it is given.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from plda.adaptation.pamr import pamr
from plda.data.archive import Archive
from plda.data.index import Entry, by_size, evenly_spread
from plda.data.loading import load_images
from plda.data.transforms import resize
from plda.errors import InputError
from plda.masks.cams import Cams, normalise_maps
from plda.masks.crf import crf
from plda.masks.seeds import Strengths, full_size
from plda.masks.walk import random_walk
from plda.models.inference import Inference, multi_scale
from plda.processes import in_processes

SAMPLE = 500  # images on which an automatic background score is chosen: enough for a stable histogram
TOGETHER = 8  # images of one size, at most
DECIDED = 0.5  # background score of a CRF's maps, which have weighed it

Step = Callable[[Tensor, Tensor], Tensor]
"""(B, 3, H, W) uint8 RGB and the images' (B, K, h, w) maps in [0, 1], to such maps."""

COLOURS: dict[str, Callable[..., Tensor]] = {"pamr": pamr}
"""Those by colours alone: (B, 3, h, w) RGB and (B, K, h, w) maps, both in [0, 1], to such maps."""


class Refined(NamedTuple):
    """One image's maps, as they are and after each step of a chain.

    Attributes:
        entry: the image.
        image: (3, H, W) uint8 RGB.
        raw: (K, h, w) in [0, 1], one for each tag.
        maps: the same after each step, by its name, in order.
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
    """The refinement `name` of COLOURS."""

    def step(images: Tensor, maps: Tensor) -> Tensor:
        return COLOURS[name](resize(images / 255, maps.shape[-2:]), maps, **settings)

    return step


def walk_step(network: Inference, *, radius: float, beta: float, steps: int) -> Step:
    """The random walk within the boundaries that `network` sees, see `plda.masks.walk`."""

    def step(images: Tensor, maps: Tensor) -> Tensor:
        boundary = torch.stack([boundaries(network, image, maps.shape[-2:]) for image in images])
        return normalise_maps(random_walk(maps, boundary, radius=radius, beta=beta, steps=steps))

    return step


def boundaries(network: Inference, image: Tensor, size: Sequence[int]) -> Tensor:
    """What a boundary network sees in a (3, H, W) uint8 image and its mirror image: (1, *size) in [0, 1]."""
    return multi_scale(network, image[None], size, scales=[1.0], flip=True)[0].sigmoid()


class Group(NamedTuple):
    """Some images of one size and number of tags.

    Attributes:
        entries: the images.
        images: (B, 3, H, W) uint8 RGB.
        maps: (B, K, h, w) in [0, 1], one for each tag.
    """

    entries: Sequence[Entry]
    images: Tensor
    maps: Tensor


def groups(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """The entries as they are refined together."""
    return by_size(entries, TOGETHER, tags=True)


def load_group(entries: Sequence[Entry], archive: Archive, cams: Cams) -> Group:
    """Read the images and maps of one of `groups`."""
    return Group(
        entries, load_images(archive, entries), torch.stack([cams.read(entry.key) for entry in entries])
    )


@torch.no_grad()
def refined(group: Group, steps: Mapping[str, Step], device: torch.device) -> list[Refined]:
    """The maps of a group after each of `steps`."""
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
    """The same, with a dense CRF as the last step; its maps are as large as the image, background at DECIDED.

    Args:
        images: after the steps before.
        background: the score that background has against their last maps.
        settings: see `plda.masks.crf.mean_field`.
        processes: how many work side by side.
    """
    waiting: deque[Refined] = deque()

    def arguments() -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
        for image in images:
            waiting.append(image)
            yield (
                image.image.permute(1, 2, 0).numpy(),
                full_size(image.last, (image.entry.height, image.entry.width)).numpy(),
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
    """The score that background has against the raw maps and against those after each step.

    Args:
        chain: gives the images of some entries, refined.
        entries: the training set.
        names: what the raw maps and those after each step are called.
        score: given, or chosen for each by Otsu's threshold on evenly spread images with tags, with no pixel
            labels.

    Returns:
        The scores by name, and how they were chosen, in words.

    Raises:
        InputError: one is to be chosen, but the raw maps are flat.
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
            f"background_score: auto: the maps of all {len(sample)} images looked at are flat: the "
            "classifier responds to none of their tags; did its loss fall (train_cam/history.csv)?"
        )
    scores = {name: histogram.otsu() for name, histogram in histograms.items()}
    return scores, f"Otsu's threshold on the maps of {len(sample)} images, no pixel labels"
