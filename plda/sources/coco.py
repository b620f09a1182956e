"""MS COCO 2014 (Lin et al., ECCV 2014) as published: two archives of images, one of annotations.

Tags are the classes of all instances, crowds included. As usual in weakly supervised segmentation, images
without instances are left out: 82,081 of 82,783 remain in train, 40,137 of 40,504 in val.

COCO has no class for each pixel, so masks are painted from outlines. Where instances overlap, the one with
the smaller `area` in the file is in front, or the first one if the areas are equal. This is the rule of
coco2voc (github.com/alicranck/coco2voc), which most code of weakly supervised segmentation cites for its
masks (ToCo, DuPL, WeCLIP). One difference: crowds, whose outlines are coarse and which COCO's scores ignore,
are void where no instance is; coco2voc gives them their class.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from plda.data.images import VOID, encode_mask
from plda.data.source import Row, Source
from plda.download.packed import Packed
from plda.errors import InputError
from plda.sources.instances import Annotated, read_instances


@dataclass(frozen=True)
class _Split:
    name: str
    table: str  # name of its annotation file
    images: list[Annotated]  # images with instances
    packed: Packed
    places: list[str]  # paths of the image files in `packed`


def read_coco(train: Packed, val: Packed, annotations: Packed, counts: Mapping[str, int]) -> Source:
    """Read the annotations of both splits; images are read and masks painted later, one by one.

    Files are found by their names, in any folder of the archive. The annotations of both splits are in memory
    at the same time, so that both are checked before the first row: 1.1 GB, at most 1.3 GB during reading
    (measured on as many random outlines; parsing one split without packing takes 2.2 GB).

    Args:
        train: train2014.zip, or a folder with its images.
        val: val2014.zip, or a folder with its images.
        annotations: annotations_trainval2014.zip, or a folder with instances_train2014.json and
            instances_val2014.json.
        counts: expected numbers: `train` and `val`, images with instances; `classes`, including background.

    Raises:
        InputError: a file is missing or wrong, or a number differs from `counts`.
    """
    tables = _by_name(annotations)
    splits, categories = [], []
    for name, packed in (("train", train), ("val", val)):
        table = f"instances_{name}2014.json"
        found, images = read_instances(annotations, _place(table, tables, annotations))
        images = [image for image in images if image.instances]
        where = f"{annotations.path}: {table}"
        _check("field categories: classes with background", 1 + len(found), counts["classes"], where)
        _check("images with instances", len(images), counts[name], where)
        files = _by_name(packed)
        splits.append(_Split(name, table, images, packed, [_place(i.file, files, packed) for i in images]))
        categories.append(found)
    if categories[0] != categories[1]:
        raise InputError(f"{annotations.path}: {table}: field categories: must be those of {splits[0].table}")
    classes = ("background", *categories[0].values())
    if len(set(classes)) < len(classes):
        raise InputError(f"{annotations.path}: {table}: field categories: duplicate name")
    return Source(classes, _rows(splits, classes), str(annotations.path), sum(map(_size, splits)))


def paint(image: Annotated) -> NDArray[np.uint8]:
    """Return the class ids of all pixels, (H, W), by the rule of this module; 0 is background."""
    ids = np.zeros((image.height, image.width), np.uint8)
    front_first = sorted(image.instances, key=lambda instance: (instance.crowd, instance.area))
    for instance in front_first[::-1]:
        whole = rle.merge(rle.frPyObjects(instance.outline, image.height, image.width))
        ids[rle.decode(whole) == 1] = VOID if instance.crowd else instance.label
    return ids


def _rows(splits: list[_Split], classes: tuple[str, ...]) -> Iterator[Row]:
    for split in splits:
        for image, place in zip(split.images, split.places, strict=True):
            yield Row(
                origin=f"{split.table}: image {image.number}",
                image=image.file,
                split=split.name,
                tags=tuple(classes[label] for label in sorted({i.label for i in image.instances})),
                content=split.packed.read(place),
                mask=encode_mask(paint(image)),
            )


def _by_name(packed: Packed) -> dict[str, list[str]]:
    """Return the paths of all files, by file name."""
    places: dict[str, list[str]] = {}
    for place in packed.names():
        places.setdefault(PurePosixPath(place).name, []).append(place)
    return places


def _place(name: str, places: dict[str, list[str]], packed: Packed) -> str:
    found = places.get(name, [])
    if not found:
        raise InputError(f"{packed.path}: holds no file {name}")
    if len(found) > 1:
        raise InputError(f"{packed.path}: holds more than one {name}: {', '.join(found)}")
    return found[0]


def _check(what: str, found: int, expected: int, where: str) -> None:
    if found != expected:
        raise InputError(f"{where}: {what}: found {found}, expected {expected}")


def _size(split: _Split) -> int:
    path = split.packed.path
    if path.is_dir():
        return sum((path / place).stat().st_size for place in split.places)
    return path.stat().st_size
