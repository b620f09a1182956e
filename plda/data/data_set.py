"""A data set as the stage index_data writes it: a folder with a table, a class list and an archive.

index.csv has one line per image (`plda.data.index`), classes.txt the class names (`plda.data.classes`), and
images.zip the images, true masks and part masks.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from plda.data.archive import Archive, writing
from plda.data.classes import class_ids, read_classes
from plda.data.images import read_image, read_mask
from plda.data.index import Entry, read_index, write_index
from plda.files import replacing


class DataSet:
    """A reader of a data set. It can be passed to worker processes.

    Attributes:
        folder: the folder.
        classes: class names, background first. The id of a class is its position.
        entries: all images, in the table's order.
    """

    def __init__(self, folder: Path) -> None:
        """Read the table and the class list.

        Raises:
            InputError: the class list is missing or invalid.
        """
        self.folder = folder
        self.classes = read_classes(folder / "classes.txt")
        self.entries = read_index(folder / "index.csv")
        self._archive = Archive(folder / "images.zip")

    @property
    def training(self) -> list[Entry]:
        """The images that are used for training."""
        return [entry for entry in self.entries if entry.teaches]

    def split(self, *names: str) -> list[Entry]:
        """Return the images of the splits `names`, in the table's order."""
        return [entry for entry in self.entries if entry.split in names]

    def ids(self, entry: Entry) -> list[int]:
        """Return the class ids of an image's tags, see `class_ids`."""
        return class_ids(entry.tags, self.classes)

    def image(self, entry: Entry) -> Tensor:
        """Read an image, (3, H, W) uint8 RGB."""
        pixels = np.array(read_image(self._archive.read(entry.image)))
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def images(self, entries: Sequence[Entry]) -> Tensor:
        """Read images of the same size, (B, 3, H, W) uint8 RGB."""
        return torch.stack([self.image(entry) for entry in entries])

    def true_mask(self, entry: Entry) -> np.ndarray:
        """Read the true mask of an entry that has one, (H, W) uint8 class ids, VOID where unknown."""
        return read_mask(self._archive.read(entry.mask))

    def parts(self, entry: Entry) -> np.ndarray:
        """Read the part mask of an entry that has one, (H, W) uint8: 0 background, 1 telling, 2 body."""
        return read_mask(self._archive.read(entry.parts))


def write_data_set(
    folder: Path, classes: Sequence[str], images: Iterable[tuple[Entry, Mapping[str, bytes]]]
) -> list[Entry]:
    """Write a data set, atomically; return the entries.

    Args:
        folder: output: the folder.
        classes: class names, background first.
        images: each image's entry, and its files by their name in the archive. They are written one by one.

    Raises:
        InputError: the folder cannot be written.
    """
    entries = []
    with replacing(folder) as temporary:
        temporary.mkdir()
        with writing(temporary / "images.zip") as add:
            for entry, files in images:
                entries.append(entry)
                for name, content in files.items():
                    add(name, content)
        write_index(temporary / "index.csv", entries)
        (temporary / "classes.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
    return entries
