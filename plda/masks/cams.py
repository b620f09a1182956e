"""Class activation maps, and the archive that stores them (docs/method.md, From maps to masks)."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from plda.data.archive import Archive, pack

STRIDE = 4  # of stored maps: a quarter of the image's side


def normalise_maps(maps: Tensor) -> Tensor:
    """Divide each map by (its maximum + 1e-5): (..., h, w), at least 0, to [0, 1)."""
    return maps / (maps.amax(dim=(-2, -1), keepdim=True) + 1e-5)


def map_size(height: int, width: int) -> tuple[int, int]:
    """Return the size (h, w) at which the maps of an image are stored."""
    return (height + STRIDE - 1) // STRIDE, (width + STRIDE - 1) // STRIDE


def write_cams(path: Path, cams: Iterable[tuple[str, Tensor]]) -> None:
    """Write an uncompressed .npz that `numpy.load` reads: for each image's key, its (K, h, w) float16 maps.

    K is the number of the image's tags, in the order of the class list; an image without tags has one map of
    zeros. Maps are written one image at a time, so memory never holds all of them.
    """
    pack(path, ((maps_name(key), encode_maps(maps)) for key, maps in cams))


class Cams:
    """A reader of the maps, one image at a time."""

    def __init__(self, path: Path) -> None:
        self._archive = Archive(path)

    def read(self, key: str) -> Tensor:
        """Return the maps of an image, (K, h, w) float32, in [0, 1)."""
        maps = np.load(io.BytesIO(self._archive.read(maps_name(key))))
        return torch.from_numpy(maps).float()


def maps_name(key: str) -> str:
    """Return the name of an image's maps in the archive."""
    return f"{key}.npy"


def encode_maps(maps: Tensor) -> bytes:
    """Encode (K, h, w) maps as a float16 .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, maps.cpu().half().numpy(), allow_pickle=False)
    return buffer.getvalue()
