"""A folder of masks: one 8-bit palette PNG per image, which image viewers can open."""

from pathlib import Path

import numpy as np

from plda.data.images import VOID, encode_mask, read_mask
from plda.data.index import Entry
from plda.errors import InputError


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


def shares_of_ids(ids: np.ndarray) -> list[tuple[int, float]]:
    """Return the ids in a mask, (H, W) uint8, each with its percent of the pixels, the largest first."""
    counts = np.bincount(ids.ravel(), minlength=VOID + 1)
    return [(int(i), float(100 * counts[i] / ids.size)) for i in counts.argsort()[::-1] if counts[i]]


def check_mask(ids: np.ndarray, entry: Entry, classes: int) -> None:
    """Check that a mask, (H, W) uint8, fits the image of `entry` and a number of classes.

    Raises:
        InputError: it has another size, or ids that are neither a class nor VOID.
    """
    if ids.shape != entry.size:
        raise InputError(
            f"size must be that of the image, {entry.width} x {entry.height}, "
            f"got {ids.shape[1]} x {ids.shape[0]}"
        )
    check_ids(ids, classes)


def check_ids(ids: np.ndarray, classes: int) -> None:
    """Check that a mask has only ids of classes, or VOID.

    Raises:
        InputError: it has another id.
    """
    largest = int(ids[ids != VOID].max(initial=0))
    if largest >= classes:
        raise InputError(f"id must be 0 to {classes - 1} (classes) or {VOID} (undecided), got {largest}")
