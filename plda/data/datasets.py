"""The training images with their tags or masks, as torch data sets.

The index of an item is (epoch, position). Its random augmentation depends only on (seed, epoch, position):
any process can create any item, and a resumed training run gets the same items as an uninterrupted run.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from plda.data.augment import augment
from plda.data.data_set import DataSet
from plda.data.index import Entry
from plda.params import Schedule
from plda.randomness import derive_seed

Item = tuple[int, int]


class TaggedCrops(Dataset[dict[str, Tensor]]):
    """Random crops with the tags of their image: `image` (3, S, S) float, `tags` (C,) float 0 or 1."""

    def __init__(self, data: DataSet, settings: Schedule, seed: int) -> None:
        self._entries, self._data, self._settings, self._seed = data.training, data, settings, seed
        self._tags = torch.stack([tag_vector(entry.tags, data.classes) for entry in self._entries])

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, item: Item) -> dict[str, Tensor]:
        image = self._data.image(self._entries[item[1]])
        crop, _ = _augmented(image, None, self._settings, self._seed, item)
        return {"image": crop, "tags": self._tags[item[1]]}


class MaskedCrops(Dataset[dict[str, Tensor]]):
    """Random crops with masks: `image` (3, S, S) float, `mask` (S, S) int64, VOID where undecided."""

    def __init__(
        self, data: DataSet, mask_of: Callable[[Entry], np.ndarray], settings: Schedule, seed: int
    ) -> None:
        self._entries, self._data, self._mask_of = data.training, data, mask_of
        self._settings, self._seed = settings, seed

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, item: Item) -> dict[str, Tensor]:
        entry = self._entries[item[1]]
        mask = torch.from_numpy(self._mask_of(entry).copy())
        crop, ids = _augmented(self._data.image(entry), mask, self._settings, self._seed, item)
        assert ids is not None
        return {"image": crop, "mask": ids.long()}


def tag_vector(tags: Sequence[str], classes: Sequence[str]) -> Tensor:
    """Return (C,) float: 1 for each class that is tagged; background, first in `classes`, is left out."""
    return torch.tensor([float(name in tags) for name in classes[1:]])


def _augmented(
    image: Tensor, mask: Tensor | None, settings: Schedule, seed: int, item: Item
) -> tuple[Tensor, Tensor | None]:
    random = torch.Generator().manual_seed(derive_seed(seed, *item))
    return augment(
        image,
        mask,
        crop=settings.crop,
        scale=settings.scale,
        jitter=settings.jitter,
        random=random,
    )
