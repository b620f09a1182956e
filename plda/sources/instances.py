"""COCO's `instances_*.json`: the images of a split, and the outline and class of every instance in them.

Only the fields for tags and masks are kept of the text (333 MB for train2014). Polygons are packed during
parsing: as lists of Python numbers they would take four times the memory.
"""

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, NamedTuple, NoReturn, TypeAlias, TypeVar

from plda.download.packed import Packed
from plda.download.progress import say
from plda.errors import InputError

# The input format of pycocotools: polygons, each x, y, x, y, ... in pixels; or one object with the lists
# `size` (height, width) and `counts`, the run lengths of pixels outside, inside, ... column by column.
Outline: TypeAlias = "list[array[float]] | list[dict[str, list[int]]]"
T = TypeVar("T")

DROPPED = {"bbox", "coco_url", "flickr_url", "date_captured", "license"}
CORNERS, FAR = 3, 2  # of a polygon: least number of corners; largest coordinate, in long sides
WORDS = {dict: "an object", list: "a list", int: "a whole number", str: "a string", (int, float): "a number"}


class Instance(NamedTuple):
    """One annotation: class id (from 1), whether it is a crowd, area in pixels from the file, outline."""

    label: int
    crowd: bool
    area: float
    outline: Outline


@dataclass(frozen=True)
class Annotated:
    """An image: its id, file name, size in pixels, and instances in the file's order."""

    number: int
    file: str
    width: int
    height: int
    instances: list[Instance] = field(default_factory=list)


def read_instances(packed: Packed, name: str) -> tuple[dict[int, str], list[Annotated]]:
    """Read and check file `name` of `packed`.

    Returns:
        The names of the categories by id, in order of id, and all images, in order of id. A class id is the
        category's position in that order, from 1.

    Raises:
        InputError: the file is not JSON, or a field is missing or wrong.
    """
    where = f"{packed.path}: {PurePosixPath(name).name}"
    say(f"{where}: reading")
    try:
        text = packed.read(name).decode()
        table = json.loads(text, object_hook=_packed, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: is not JSON: {error}") from error
    del text
    names = [
        (number, _field(record, "name", str, of))
        for number, record, of in _records(table, "categories", where)
    ]
    categories = dict(sorted(names))
    images = {number: _image(number, record, of) for number, record, of in _records(table, "images", where)}
    labels = {number: label for label, number in enumerate(categories, 1)}
    for _, record, of in _records(table, "annotations", where):
        image, label = _known(record, "image_id", images, of), _known(record, "category_id", labels, of)
        area, outline = _field(record, "area", (int, float), of), _outline(record, image, of)
        image.instances.append(Instance(label, _crowd(record, of), area, outline))
    return categories, [images[number] for number in sorted(images)]


def _packed(record: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a parsed object that are kept."""
    kept = {key: value for key, value in record.items() if key not in DROPPED}
    if isinstance(kept.get("segmentation"), list):
        kept["segmentation"] = [_numbers(polygon) for polygon in kept["segmentation"]]
    return kept


def _numbers(polygon: Any) -> Any:
    try:
        return array("d", polygon)
    except (TypeError, OverflowError):
        return polygon  # rejected later, with the name of the annotation


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _records(table: Any, name: str, where: str) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Yield each object in list `name`: its id, the object, and its name for messages."""
    seen: set[int] = set()
    kind = {"images": "image", "annotations": "annotation", "categories": "category"}[name]
    for place, record in enumerate(_field(table, name, list, where)):
        number = _field(record, "id", int, f"{where}: {name}[{place}]")
        if number in seen:
            raise InputError(f"{where}: {kind} {number}: field id: duplicate id")
        seen.add(number)
        yield number, record, f"{where}: {kind} {number}"


def _field(record: Any, name: str, kind: type[T] | tuple[type[T], ...], where: str) -> T:
    value = record.get(name) if isinstance(record, dict) else None
    if value is None:
        raise InputError(f"{where}: field {name}: is missing")
    if not isinstance(value, kind):
        raise InputError(f"{where}: field {name}: must be {WORDS[kind]}, got {value!r:.40}")
    return value


def _known(record: dict[str, Any], name: str, known: dict[int, T], where: str) -> T:
    number = _field(record, name, int, where)
    if number not in known:
        raise InputError(f"{where}: field {name}: {number} is not in the file")
    return known[number]


def _image(number: int, record: dict[str, Any], where: str) -> Annotated:
    width, height = _field(record, "width", int, where), _field(record, "height", int, where)
    if min(width, height) < 1:
        raise InputError(f"{where}: field width, height: must be at least 1, got {width}x{height}")
    return Annotated(number, PurePosixPath(_field(record, "file_name", str, where)).name, width, height)


def _crowd(record: dict[str, Any], where: str) -> bool:
    crowd = _field(record, "iscrowd", int, where)
    if crowd not in (0, 1):
        raise InputError(f"{where}: field iscrowd: must be 0 or 1, got {crowd}")
    return bool(crowd)


def _outline(record: dict[str, Any], image: Annotated, where: str) -> Outline:
    """Return the checked field `segmentation`; a wrong one makes pycocotools access invalid memory."""
    outline = record.get("segmentation")
    if isinstance(outline, dict):
        return [_runs(outline, image, f"{where}: field segmentation")]
    polygons = _field(record, "segmentation", list, where)
    fault = "" if polygons else "is empty"
    far = FAR * max(image.width, image.height)
    for polygon in polygons:
        if not isinstance(polygon, array):
            fault = "a polygon must be a list of numbers"
        elif len(polygon) < 2 * CORNERS or len(polygon) % 2:
            fault = f"a polygon has {len(polygon)} numbers; it must have pairs, at least {CORNERS}"
        elif min(polygon) < -far or max(polygon) > far:
            fault = "a polygon is far outside the image"
    if fault:
        raise InputError(f"{where}: field segmentation: {fault}")
    return polygons


def _runs(outline: dict[str, Any], image: Annotated, where: str) -> dict[str, list[int]]:
    size, counts = [image.height, image.width], _field(outline, "counts", list, where)
    if _field(outline, "size", list, where) != size:
        raise InputError(f"{where}: field size: got {outline['size']}, but the image has {size}")
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        raise InputError(f"{where}: field counts: must be whole numbers of at least 0")
    if sum(counts) != image.height * image.width:
        pixels = image.height * image.width
        raise InputError(f"{where}: field counts: sum is {sum(counts)}, but the image has {pixels} pixels")
    return {"size": size, "counts": counts}
