"""PASCAL VOC XML: one file per photo, its classes in `object/name`.

Splits come from ImageSets/Main (or Segmentation), else from folders such as `train/`. Masks come from
SegmentationClass; labelmap.txt, as CVAT and Datumaro write it, says which class an id or a colour is. Without
it they are VOC's own.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plda.data.classes import MOST
from plda.data.images import VOID, read_file
from plda.data.source import SPLITS, Colour
from plda.data.text import plain, read_text
from plda.errors import InputError
from plda.readers.fields import read_xml
from plda.readers.found import Files, Found, Size, split_in
from plda.sources.true_masks import read_true_mask
from plda.sources.voc import CLASSES

LISTS = ("ImageSets/Main", "ImageSets/Segmentation")
Legend = tuple[Sequence[str], Sequence[Colour] | None]  # class and colour of each id


def recognises(source: Path) -> bool:
    """Return whether a folder has XML files of VOC."""
    files = _labels(source)[1] if source.is_dir() else []
    return bool(files) and read_xml(files[0]).tag == "annotation"


def read(source: Path, images: Path | None) -> Found:
    """Read all XML files. A photo whose file has no object shows none of the classes."""
    home, files = _labels(source)
    if not files:
        raise InputError(f"{source}: must be a folder with XML files of VOC")
    photos = source / "JPEGImages"
    found = Found(Files(images or (photos if photos.is_dir() else source)))
    lists = _lists(source)
    labels = {file: _tags(file) for file in files}
    legend = _legend(source, {tag for _, tags in labels.values() for tag in tags})
    for file, (name, tags) in labels.items():
        place = file.relative_to(home)
        bare = plain(place.with_suffix("").as_posix())
        split = lists.get(bare, "") if lists else split_in(place.parent)
        path = found.locate(*([place.with_name(name).as_posix()] if name else []), bare)
        if path and lists and not split:
            found.left_out[f"in no list of {LISTS[0]}"].append(bare)
        elif path:
            mask = source / "SegmentationClass" / place.with_suffix(".png")
            found.add(path, split, tags, partial(_mask, mask, legend) if legend and mask.exists() else None)
    if not legend and (source / "SegmentationClass").is_dir():
        found.notes.append("masks need labelmap.txt, as the classes are not those of VOC")
    found.notes.append("photos whose XML has no object show none of the classes")
    return found


def _labels(source: Path) -> tuple[Path, list[Path]]:
    home = source / "Annotations" if (source / "Annotations").is_dir() else source
    return home, sorted(home.rglob("*.xml"))


def _tags(file: Path) -> tuple[str, list[str]]:
    """Return the file name of the photo, "" if it is missing, and the classes."""
    root = read_xml(file)
    if root.tag != "annotation":
        raise InputError(f"{file}: root must be annotation, got {root.tag}")
    tags = [(thing.findtext("name") or "").strip() for thing in root.iterfind("object")]
    if "" in tags:
        raise InputError(f"{file}: object[{tags.index('')}]/name must be a class, got nothing")
    return Path((root.findtext("filename") or "").strip().replace("\\", "/")).name, tags


def _lists(source: Path) -> dict[str, str]:
    """Return the split of each photo, by its path without extension."""
    splits: dict[str, str] = {}
    home = next((source / place for place in LISTS if (source / place / "train.txt").exists()), source)
    for split in SPLITS if home != source else ():
        file = home / f"{split}.txt"
        for line, text in enumerate(read_text(file).splitlines() if file.exists() else (), 1):
            name = plain(text).strip('"')
            if splits.setdefault(name, split) != split:
                raise InputError(
                    f"{file}: line {line}: {name!r} must be in one list, got {splits[name]}, too"
                )
    return splits


def _legend(source: Path, tags: set[str]) -> Legend | None:
    """Return the class and colour of each id in masks; None if nothing says them."""
    file = source / "labelmap.txt"
    if not file.exists():
        return (CLASSES, None) if tags <= {*CLASSES} else None
    names, colours = [], []
    for line, text in enumerate(read_text(file).splitlines(), 1):
        parts = re.fullmatch(r"(.*?):(\d{1,3}),(\d{1,3}),(\d{1,3})(:.*)?", text.strip())
        if parts:
            names.append(plain(parts[1]))
            colours.append((int(parts[2]), int(parts[3]), int(parts[4])))
        elif text.strip() and not text.startswith("#"):
            raise InputError(f"{file}: line {line}: must be NAME:RED,GREEN,BLUE:..., got {text!r}")
    if not 1 <= len(names) <= MOST:
        raise InputError(f"{file}: must have 1 to {MOST} classes, got {len(names)}")
    return names, colours


def _mask(file: Path, legend: Legend, ids: Mapping[str, int], size: Size) -> NDArray[np.uint8]:
    names, colours = legend
    given = read_true_mask(read_file(file), size, len(names) - 1, colours)
    table = np.full(VOID + 1, VOID, np.uint8)
    table[: len(names)] = [ids.get(name, 0) for name in names]
    return np.asarray(table[given])
