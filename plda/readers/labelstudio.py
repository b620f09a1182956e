"""Label Studio's exports JSON and JSON-MIN: choices, and labels of boxes, polygons and other regions.

JSON is a list of tasks with `data` and `annotations`; of several annotations the first one that was not
skipped counts. JSON-MIN is a list of tasks without these, each with its photo and fields of results.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from plda.data.images import ENDINGS
from plda.data.source import UNKNOWN
from plda.errors import InputError
from plda.readers.fields import checked, get, read_json, shown
from plda.readers.found import Files, Found
from plda.readers.outlines import Shape, mask_of, polygon

LABELS = re.compile(r"choices|taxonomy|[a-z]*labels")  # fields of `value` with names of classes
CHOICES = ("choice", "choices", "label", "labels", "tag", "tags", "class")  # fields of JSON-MIN, also as text
PREFIX = re.compile(r"^[0-9a-f]{8}-")  # which Label Studio puts before the name of an upload
Region = tuple[list[str], Any]  # classes, and the object `value`


def recognises(source: Path) -> bool:
    """Return whether a file is an export of Label Studio, or the only JSON file of a folder is one."""
    table = _table(source)
    tasks = read_json(table) if table else None
    keys = tasks[0].keys() if isinstance(tasks, list) and tasks and isinstance(tasks[0], dict) else set()
    return bool({"data", "annotations", "completions", "annotator", "annotation_id"} & keys)


def read(source: Path, images: Path | None) -> Found:
    """Read all tasks. A task without annotation has unknown tags; an empty annotation means no class."""
    table = _table(source)
    if table is None:
        raise InputError(f"{source}: must be a JSON file of Label Studio or a folder with one")
    found = Found(Files(images or table.parent))
    for place, task in enumerate(checked(read_json(table), list, f"{table}: content")):
        where = f"{table}: tasks[{place}]"
        names = _file_names(checked(task, dict, where), where)
        regions = _regions(task, where)
        if not (path := found.locate(*names)):
            continue
        if regions is None:
            found.add(path, "", UNKNOWN)
            continue
        tags = [tag for labels, _ in regions for tag in labels]
        shapes = [shape for region in regions for shape in _shapes(region, where)]
        found.add(path, "", tags, mask_of(shapes, None, tags))
    found.notes.append("tasks without annotation have unknown tags (?), empty annotations mean no class")
    return found


def _table(source: Path) -> Path | None:
    if source.is_dir():
        files = sorted(source.glob("*.json"))
        return files[0] if len(files) == 1 else None
    return source if source.suffix.lower() == ".json" else None


def _file_names(task: dict[str, Any], where: str) -> list[str]:
    """Return the names that the photo may have: as in the task, and without the prefix of uploads."""
    data = get(task, "data", dict, where) if "data" in task else task
    texts = [value for value in data.values() if isinstance(value, str)]
    value = data.get("image") or data.get("img") or next(filter(_is_photo, texts), None)
    text = checked(value, str, f"{where}: data.image")
    try:
        url = urlsplit(text) if ":" in text or text.startswith("/data/") else None
    except ValueError as error:
        raise InputError(f"{where}: data.image must be a path or a URL, got {shown(text)}") from error
    local = parse_qs(url.query).get("d") if url else None
    if local:
        return [local[0]]
    name = unquote(url.path) if url else text
    last = name.replace("\\", "/").rpartition("/")[2]
    names = [name, last, PREFIX.sub("", last)] if url is None else [last, PREFIX.sub("", last)]
    return list(dict.fromkeys(names))


def _is_photo(text: str) -> bool:
    return text.lower().partition("?")[0].endswith(ENDINGS)


def _regions(task: dict[str, Any], where: str) -> list[Region] | None:
    """Return the labelled results of a task; None if it has no annotation that was not skipped."""
    key = next((key for key in ("annotations", "completions", "data") if key in task), "")
    if not key:  # JSON-MIN
        return [found for name, value in task.items() for found in _short(name, value, f"{where}: {name}")]
    for place, record in enumerate(get(task, key, list, where) if key != "data" else []):
        here = f"{where}: {key}[{place}]"
        if not checked(record, dict, here).get("was_cancelled"):
            results = [
                (get(result, "value", dict, f"{here}: result[{i}]"), f"{here}: result[{i}]: value")
                for i, result in enumerate(get(record, "result", list, here))
            ]
            return [(labels, value) for value, at in results if (labels := _classes(value, at))]
    return None


def _short(name: str, value: Any, where: str) -> Iterator[Region]:
    """Yield the results in a field of JSON-MIN; other fields are data of the task."""
    if isinstance(value, str) and name in CHOICES:
        yield [value], {}
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, dict) and (labels := _classes(part, where)):
            yield labels, part


def _classes(value: dict[str, Any], where: str) -> list[str]:
    lists = [get(value, name, list, where) for name in value if LABELS.fullmatch(name)]
    names = [
        label[-1] if isinstance(label, list) and label else label for labels in lists for label in labels
    ]
    return [checked(name, str, f"{where}: label") for name in names]  # a list is a path in a taxonomy


def _shapes(region: Region, where: str) -> list[Shape | None]:
    """Return the outline of a region, [None] for a box or a brush, [] for a choice. Units are percent."""
    labels, value = region
    if not value or "choices" in value or "taxonomy" in value:
        return []
    if "polygonlabels" not in value and not isinstance(value.get("points"), list):
        return [None]
    pairs = [checked(pair, list, f"{where}: points") for pair in get(value, "points", list, where)]
    corners = polygon([part for pair in pairs for part in pair], f"{where}: points")
    return [Shape(labels[0], [[part / 100 for part in corners]])]
