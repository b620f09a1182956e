"""Masks as a data set in the format of another program, read back before it counts as written."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from tqdm import tqdm

from plda.data.images import enlarge_mask, read_file, read_mask
from plda.errors import InputError
from plda.files import delete_remains, remains_of, replacing
from plda.masks.folder import check_ids
from plda.writers import coco, cvat, datumaro, labelstudio, voc, yolo
from plda.writers.pieces import Labelled, Options, Picture, find_pieces, overlap
from plda.writers.polygons import LEAST_IOU

Format: TypeAlias = Literal["coco", "yolo", "voc", "labelstudio", "cvat", "datumaro"]
Objects: TypeAlias = Iterable[tuple[int, np.ndarray]]
MOST_FAULTS = 10  # lines of an error


class Writer(NamedTuple):
    """A format: the functions that write a data set and read it back; whether it may hold run lengths."""

    write: Callable[[Path, Iterable[Labelled], Options], None]
    read: Callable[[Path, Sequence[Picture], Options], Iterator[Objects]]
    rle: bool = False


WRITERS: Mapping[Format, Writer] = {
    "coco": Writer(coco.write, coco.read, rle=True),
    "yolo": Writer(yolo.write, yolo.read),
    "voc": Writer(voc.write, voc.read),
    "labelstudio": Writer(labelstudio.write, labelstudio.read),
    "cvat": Writer(cvat.write, cvat.read, rle=True),
    "datumaro": Writer(datumaro.write, datumaro.read, rle=True),
}


@dataclass
class Written:
    """What was written.

    Attributes:
        images: number of images.
        objects: number of objects by class name.
        small: number of pieces that were left out.
        lowest: lowest IoU of an object with what was read back; 1 without objects.
    """

    images: int = 0
    objects: Counter[str] = field(default_factory=Counter)
    small: int = 0
    lowest: float = 1.0


def write_labels(
    pictures: Sequence[Picture],
    classes: Sequence[str],
    out: Path,
    format: Format,
    *,
    min_area: float = 0.001,
    tolerance: float = 1.0,
    rle: bool = False,
    photos: str = "photos",
) -> Written:
    """Write masks as a data set, read it back, and compare every object with its mask.

    Args:
        pictures: the masks and their photos.
        classes: class names by id, background first.
        out: folder to create; it must be missing or empty.
        format: the format.
        min_area: smaller pieces are left out: pixels, or below 1 a share of the image.
        tolerance: largest distance in pixels between an outline and its polygon.
        rle: whether objects are written as run lengths, exactly, instead of polygons.
        photos: name of the folder of the photos.

    Raises:
        InputError: a mask has an id that is no class, `out` cannot be written or is not empty, or an object
            read back has an IoU below LEAST_IOU with its mask. Nothing is written then.
    """
    if rle and not WRITERS[format].rle:
        others = ", ".join(name for name, writer in WRITERS.items() if writer.rle)
        raise InputError(f"--rle: must be used with one of {others}, got {format}")
    check_folder(out)
    check_masks(pictures, classes)
    delete_remains(remains_of(out))
    options = Options(classes, tolerance, rle, photos)
    with replacing(out) as folder:
        folder.mkdir()
        WRITERS[format].write(folder, _labelled(pictures, min_area, "writing"), options)
        objects = WRITERS[format].read(folder, pictures, options)
        return _compare(_labelled(pictures, min_area, "checking"), objects, classes)


def check_folder(out: Path) -> None:
    """Check that a data set can be written to a folder.

    Raises:
        InputError: it is not a new or empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: must be a new or empty folder, got {'files' if out.is_dir() else 'a file'}")


def check_masks(pictures: Sequence[Picture], classes: Sequence[str]) -> None:
    """Check that every mask can be read, has the size of its picture, and only ids of classes or VOID.

    Raises:
        InputError: names the masks, at most MOST_FAULTS.
    """
    faults = []
    for picture in tqdm(pictures, "reading", unit="mask", disable=not sys.stderr.isatty()):
        try:
            check_ids(_ids(picture), len(classes))
        except InputError as error:
            faults.append(f"{picture.mask}: {error}")
        if len(faults) == MOST_FAULTS:
            break
    if faults:
        raise InputError("\n".join(faults))


def _ids(picture: Picture) -> np.ndarray:
    """Return the class ids of a picture; a mask made of a shrunk photo is enlarged to the photo's size.

    Raises:
        InputError: the mask cannot be read, or is not as large as the photo and not a shrunk form of it.
    """
    ids = read_mask(read_file(picture.mask))
    height, width = ids.shape
    factor = max(ids.shape) / max(picture.height, picture.width)
    if (width, height) == (picture.width, picture.height):
        return ids
    shrunk = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    if factor > 1 or (width, height) != shrunk:
        size = f"{picture.width}x{picture.height}"
        raise InputError(f"must be as large as {picture.photo}, {size}, got {width}x{height}")
    return enlarge_mask(ids, (picture.height, picture.width))


def _labelled(pictures: Sequence[Picture], min_area: float, doing: str) -> Iterator[Labelled]:
    """Yield each picture with its ids and objects."""
    for picture in tqdm(pictures, doing, unit="mask", disable=not sys.stderr.isatty()):
        ids = _ids(picture)
        yield Labelled(picture, ids, *find_pieces(ids, min_area))


def _compare(labelled: Iterable[Labelled], read: Iterable[Objects], classes: Sequence[str]) -> Written:
    """Compare the objects of masks with those that were read back.

    Raises:
        InputError: they differ; names at most MOST_FAULTS objects.
    """
    written, faults = Written(), []
    for (picture, _, pieces, small), objects in zip(labelled, read, strict=True):
        ious = [
            overlap(piece, pixels) if label == piece.label else 0.0
            for piece, (label, pixels) in zip(pieces, objects, strict=True)
        ]
        faults += [
            f"{picture.mask}: object {number}: IoU must be at least {LEAST_IOU}, got {iou:.3f}"
            for number, iou in enumerate(ious, 1)
            if iou < LEAST_IOU
        ]
        written.images += 1
        written.small += small
        written.objects.update(classes[piece.label] for piece in pieces)
        written.lowest = min([written.lowest, *ious])
    if faults:
        raise InputError("\n".join(faults[:MOST_FAULTS]))
    return written
