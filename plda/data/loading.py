"""Images and true masks of an index, read from its archive."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from plda.data.archive import Archive
from plda.data.images import read_image, read_mask
from plda.data.index import Entry


def load_image(archive: Archive, entry: Entry) -> Tensor:
    """(3, H, W) uint8 RGB."""
    pixels = np.array(read_image(archive.read(entry.image)))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def load_images(archive: Archive, entries: Sequence[Entry]) -> Tensor:
    """(B, 3, H, W) uint8 RGB, of entries of one size."""
    return torch.stack([load_image(archive, entry) for entry in entries])


def load_true_mask(archive: Archive, name: str) -> np.ndarray:
    """(H, W) uint8: what `entry.mask` or `entry.parts` names."""
    return read_mask(archive.read(name))
