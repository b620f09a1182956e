"""A folder of masks: one 8-bit palette PNG per image, which image viewers can open."""

from pathlib import Path

import numpy as np

from plda.data.images import encode_mask, read_mask
from plda.data.index import Entry


def write_mask(folder: Path, entry: Entry, ids: np.ndarray) -> None:
    """Write class ids, (H, W) uint8, as the mask of `entry`."""
    path = mask_path(folder, entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_mask(ids))


class Masks:
    """A reader of the folder's masks; call it with an entry."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, entry: Entry) -> np.ndarray:
        """Return (H, W) uint8 class ids, VOID where undecided."""
        return read_mask(mask_path(self._folder, entry).read_bytes())


def mask_path(folder: Path, entry: Entry) -> Path:
    """Return the path of the mask of `entry`."""
    return folder / mask_name(entry)


def mask_name(entry: Entry) -> str:
    """Return the file name of the mask of `entry`."""
    return f"{entry.key}.png"
