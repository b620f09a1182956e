"""Reading images and true masks of an index from its archive."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from plda.data.archive import Archive
from plda.data.images import read_image, read_mask
from plda.data.index import Entry


def load_image(archive: Archive, entry: Entry) -> Tensor:
    """Read the image of an entry, (3, H, W) uint8 RGB."""
    pixels = np.array(read_image(archive.read(entry.image)))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def load_images(archive: Archive, entries: Sequence[Entry]) -> Tensor:
    """Read the images of entries of the same size, (B, 3, H, W) uint8 RGB."""
    return torch.stack([load_image(archive, entry) for entry in entries])


def load_true_mask(archive: Archive, name: str) -> np.ndarray:
    """Read the mask that `entry.mask` or `entry.parts` names, (H, W) uint8."""
    return read_mask(archive.read(name))
