"""COCO JSON: `images`, `categories` and `annotations` with outlines, boxes, or a class only."""

import re
from collections import defaultdict
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from plda.errors import InputError
from plda.readers.fields import checked, get, read_json, shown
from plda.readers.found import SPLIT_NAMES, Files, Found, Size
from plda.readers.outlines import Shape, mask_of, polygon, runs

PLACES = ("*.json", "annotations/*.json", "*/*.coco.json")


def recognises(source: Path) -> bool:
    """Return whether a file is COCO JSON, or a folder has one."""
    return bool(_tables(source))


def read(source: Path, images: Path | None) -> Found:
    """Read one JSON file, or those of all splits. Images without annotations show none of the classes."""
    tables = _tables(source)
    if not tables:
        raise InputError(f"{source}: must be a COCO JSON file or a folder with one")
    home = source if source.is_dir() else source.parent
    found = Found(Files(images or (home.parent if home.name == "annotations" else home)))
    for table in tables:
        split = _split(table.relative_to(home)) if len(tables) > 1 else ""
        if len(tables) > 1 and not split:
            raise InputError(f"{table}: name must hold train, val or test, as there are several JSON files")
        read_file(table, split, found)
    found.notes.append("photos without annotations show none of the classes")
    return found


def _tables(source: Path) -> list[Path]:
    if source.is_dir():
        files = sorted({path for place in PLACES for path in source.glob(place)})
        instances = [path for path in files if path.name.startswith("instances_")]
        return [path for path in instances or files if _is_coco(path)]
    return [source] if source.suffix.lower() == ".json" and _is_coco(source) else []


def _is_coco(path: Path) -> bool:
    value = read_json(path)
    return isinstance(value, dict) and {"images", "categories"} <= value.keys()


def read_file(table: Path, split: str, found: Found) -> None:
    """Add the photos of one JSON file to `found`, with the split `split`."""
    content = read_json(table)
    names = {
        number: get(record, "name", str, where)
        for number, (record, where) in _records(content, "categories", table).items()
    }
    found.classes += [name for _, name in sorted(names.items(), key=lambda item: str(item[0]).zfill(20))]
    images = _records(content, "images", table)
    annotations: dict[Hashable, list[tuple[Any, str]]] = defaultdict(list)
    for place, record in enumerate(get(content, "annotations", list, str(table))):
        where = f"{table}: annotations[{place}]"
        image = _id(record, "image_id", where)
        if image not in images:
            raise InputError(f"{where}: image_id must be that of an image, got {image!r}")
        annotations[image].append((record, where))
    for number, (record, where) in images.items():
        name = get(record, "file_name", str, where)
        numbers = [_id(thing, "category_id", place) for thing, place in annotations[number]]
        shapes = [_shape(thing, names, place) for thing, place in annotations[number]]
        size = _size(record, where) if any(shapes) else None
        path = found.locate(f"{_beside(table)}{name}", name)
        if path and not set(numbers) <= names.keys():
            found.left_out["a class without a name"].append(name)
        elif path:
            tags = [names[category] for category in numbers]
            found.add(path, split, tags, mask_of(shapes, size, tags))


def _split(table: Path) -> str:
    """Return the split that a file's name or folder holds, as in instances_val2017.json."""
    words = re.findall(r"[a-z]+", table.as_posix().lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "")


def _beside(table: Path) -> str:
    """Return the folder that Roboflow's file has beside the photos of its split."""
    return f"{table.parent.name}/" if table.name.startswith("_annotations") else ""


def _records(content: Any, name: str, table: Path) -> dict[Hashable, tuple[Any, str]]:
    """Return the objects of a list by id, each with its place for messages."""
    records: dict[Hashable, tuple[Any, str]] = {}
    for place, record in enumerate(get(content, name, list, str(table))):
        where = f"{table}: {name}[{place}]"
        number = _id(record, "id", where)
        if number in records:
            raise InputError(f"{where}: id must be unique, got {number!r} again")
        records[number] = record, where
    return records


def _id(record: Any, name: str, where: str) -> int | str:
    value = checked(record, dict, where).get(name)
    return value if isinstance(value, str) else checked(value, int, f"{where}: {name}")


def _size(record: Any, where: str) -> Size:
    return get(record, "width", int, where), get(record, "height", int, where)


def _shape(record: Any, names: dict[Hashable, str], where: str) -> Shape | None:
    """Return the outline of an annotation; None if it has only a box or only a class."""
    label, outline = names.get(record["category_id"], ""), record.get("segmentation")
    void = record.get("iscrowd") in (1, True)
    where = f"{where}: segmentation"
    if not outline:
        return None
    if isinstance(outline, dict):
        return Shape(label, runs(outline.get("counts"), outline.get("size"), where), void)
    if not isinstance(outline, list):
        raise InputError(f"{where} must be a list of polygons or run lengths, got {shown(outline)}")
    return Shape(label, [polygon(each, where) for each in outline], void)
