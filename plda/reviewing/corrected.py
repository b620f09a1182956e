"""Masks that a person corrected with another program: PNG files, or COCO JSON with outlines."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from plda.data.data_set import DataSet
from plda.data.images import encode_mask, read_file, read_mask
from plda.data.index import Entry
from plda.errors import InputError
from plda.masks.folder import check_mask
from plda.masks.review import image_name
from plda.readers import coco
from plda.readers.found import Files, Found, Photo

MOST_FAULTS = 10  # in one message


class Corrected(NamedTuple):
    """A mask to be checked.

    Attributes:
        where: the file, and the image in it, for messages.
        entry: the image.
        read: returns the mask, (H, W) uint8 class ids, or raises an InputError without a file name.
    """

    where: str
    entry: Entry
    read: Callable[[], np.ndarray]


def read_corrected(source: Path, data: DataSet) -> list[tuple[Entry, bytes]]:
    """Read masks and check all of them.

    Args:
        source: a folder of PNG files KEY.png with class ids, where KEY is the path of an image without its
            extension; or a COCO JSON file whose file names are those of images. Its images without
            annotations are left out.
        data: the data set, whose training images have masks.

    Returns:
        The images, each with the file of its mask.

    Raises:
        InputError: there is no mask; or a mask cannot be read, belongs to no training image, has another size
            than its image, or has unknown ids or classes. The first faults are listed, one per line.
    """
    if source.is_dir():
        found = list(_in_folder(source, data))
    elif source.suffix.lower() == ".json" and coco.recognises(source):
        found = list(_in_coco(source, data))
    else:
        raise InputError(f"{source}: --masks: must be a folder of PNG files or a COCO JSON file")
    if not found:
        raise InputError(f"{source}: --masks: must hold masks, got none")
    masks, faults = [], []
    for each in found:
        try:
            ids = each.read()
            check_mask(ids, each.entry, len(data.classes))
            masks.append((each.entry, encode_mask(ids)))
        except InputError as error:
            faults.append(f"{each.where}: {error}")
    _refuse(faults)
    return masks


def _in_folder(folder: Path, data: DataSet) -> Iterator[Corrected]:
    entries = {entry.key: entry for entry in data.training}
    files = sorted(path for path in folder.rglob("*.png") if not path.name.startswith("."))
    keys = {path: path.relative_to(folder).with_suffix("").as_posix() for path in files}
    _refuse(
        f"{path}: name must be that of a training image, except for the extension, got {key!r}"
        for path, key in keys.items()
        if key not in entries
    )
    for path, key in keys.items():
        yield Corrected(str(path), entries[key], partial(_read_png, path))


def _read_png(path: Path) -> np.ndarray:
    return read_mask(read_file(path))


def _in_coco(table: Path, data: DataSet) -> Iterator[Corrected]:
    entries = {Path(image_name(entry)): entry for entry in data.training}
    found = Found(Files(Path(), map(str, entries)))
    coco.read_file(table, "", found)
    _refuse(
        f"{table}: file_name: must be that of one training image, got {name!r}: {reason}"
        for reason, names in found.left_out.items()
        for name in names
    )
    for path, photo in found.photos.items():
        if photo.tags:
            yield Corrected(f"{table}: {path}", entries[path], partial(_draw, photo, entries[path], data))


def _draw(photo: Photo, entry: Entry, data: DataSet) -> np.ndarray:
    for tag in photo.tags:
        if tag not in data.classes:
            raise InputError(f"category: must be a class ({', '.join(data.classes)}), got {tag!r}")
    if photo.mask is None:
        raise InputError("segmentation: every object must have an outline, got one without")
    return photo.mask({name: i for i, name in enumerate(data.classes)}, (entry.width, entry.height))


def _refuse(faults: Iterable[str]) -> None:
    """Raise an InputError with the first faults if there are any."""
    found = list(faults)
    if found:
        more = [f"and {len(found) - MOST_FAULTS} more"] if len(found) > MOST_FAULTS else []
        raise InputError("\n".join([*found[:MOST_FAULTS], *more]))
