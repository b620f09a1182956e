"""YOLO: data.yaml (`names`, and the photos of `train`, `val`, `test`), and a text file of labels per photo.

A line of labels is `class x y width height` (a box) or `class x y x y ...` (a polygon), as fractions of the
photo's size.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plda.data.text import read_text
from plda.errors import InputError
from plda.readers.fields import checked, number, read_yaml, shown
from plda.readers.found import Files, Found, inner_parts
from plda.readers.outlines import Shape, mask_of, polygon

TABLES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
BOX, TURNED_BOX = 5, 9  # numbers in a line
SLACK = 0.1  # by how much labels may be outside the photo
Label = tuple[int, list[float]]  # class, numbers after it


def recognises(source: Path) -> bool:
    """Return whether a file is YAML, or a folder has a data.yaml."""
    return _table(source) is not None


def read(source: Path, images: Path | None) -> Found:
    """Read the photos of all splits. A photo with an empty file of labels, or none, shows no class."""
    table = _table(source)
    if table is None:
        raise InputError(f"{source}: must be a data.yaml of YOLO or a folder with one")
    content = read_yaml(table)
    names = _names(content.get("names"), table)
    found = Found(Files(images or table.parent), classes=list(names.values()))
    labelled: list[tuple[Path, str, list[Label]]] = []
    for key, split in SPLITS.items():
        for path in _photos(found, content, key, table):
            labelled.append((path, split, _labels(found.files.folder, path)))
    lengths = {1 + len(numbers) for _, _, labels in labelled for _, numbers in labels}
    boxes = "kpt_shape" in content or lengths <= {BOX, TURNED_BOX}  # turned boxes have 4 corners, always
    for path, split, labels in labelled:
        if not {class_id for class_id, _ in labels} <= names.keys():
            found.left_out["a class without a name"].append(found.files.name(path))
            continue
        shapes = [
            None if boxes or 1 + len(numbers) == BOX else Shape(names[class_id], [numbers])
            for class_id, numbers in labels
        ]
        tags = [names[class_id] for class_id, _ in labels]
        found.add(path, split, tags, mask_of(shapes, None, tags))
    found.notes.append("photos without labels show none of the classes")
    return found


def _table(source: Path) -> Path | None:
    if source.is_dir():
        return next((source / name for name in TABLES if (source / name).exists()), None)
    return source if source.suffix.lower() in (".yaml", ".yml") else None


def _names(value: Any, table: Path) -> dict[int, str]:
    if not isinstance(value, dict | list) or not value:
        raise InputError(f"{table}: names must be a list or an object of names, got {shown(value)}")
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    names = {}
    for key, name in pairs:
        class_id = int(key) if isinstance(key, str) and key.isdecimal() else key
        where = f"{table}: names[{key}]"
        names[checked(class_id, int, where)] = checked(str(name) if type(name) is int else name, str, where)
    return dict(sorted(names.items()))


def _photos(found: Found, content: Any, key: str, table: Path) -> Iterator[Path]:
    """Yield the photos of a split: those in folders, or in lists, of the folder of the photos."""
    entries = content.get(key)
    for entry in entries if isinstance(entries, list) else [entries] if entries else []:
        home = str(content.get("path") or "")
        parts = inner_parts(home) + inner_parts(checked(entry, str, f"{table}: {key}"))
        ends = (found.files.folder.joinpath(*parts[i:]) for i in range(len(parts) + (not parts)))
        place = next((end for end in ends if os.path.exists(end)), None)  # noqa: PTH110 (any name)
        if place is None:
            raise InputError(
                f"{table}: {key} must be a folder or a list of photos in {found.files.folder}, got {entry!r}"
            )
        if place.is_dir():
            yield from (path for path in found.files.paths if place in path.parents)
        else:
            names = filter(None, map(str.strip, read_text(place).splitlines()))
            yield from filter(None, map(found.locate, names))


def _labels(folder: Path, photo: Path) -> list[Label]:
    """Return the labels of a photo: in `labels/` instead of `images/`, or beside the photo."""
    parts = list(photo.relative_to(folder).parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    places = (folder.joinpath(*parts).with_suffix(".txt"), photo.with_suffix(".txt"))
    file = next((place for place in places if place.exists()), None)
    if file is None:
        return []
    lines = enumerate(read_text(file).splitlines(), 1)
    return [_label(text.split(), f"{file}: line {line}:") for line, text in lines if text.strip()]


def _label(words: list[str], where: str) -> Label:
    class_id, *numbers = (number(word, where) for word in words)
    if class_id < 0 or class_id % 1:
        raise InputError(f"{where} class must be a whole number, got {words[0]}")
    if len(words) != BOX:
        numbers = polygon(numbers, where)
    for value in numbers:
        if not -SLACK <= value <= 1 + SLACK:
            raise InputError(f"{where} must have fractions of the photo's size, from 0 to 1, got {value:g}")
    return int(class_id), numbers
