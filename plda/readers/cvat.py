"""CVAT for images 1.1: one XML file with a `tag`, `box`, `polygon`, `mask`, ... per object of each image."""

from pathlib import Path
from xml.etree.ElementTree import Element

from plda.errors import InputError
from plda.readers.fields import number, read_xml, shown
from plda.readers.found import SPLIT_NAMES, Files, Found, Size
from plda.readers.outlines import Runs, Shape, box_runs, mask_of, polygon

WITHOUT_LABEL = ("attribute",)


def recognises(source: Path) -> bool:
    """Return whether a file, or annotations.xml of a folder, is XML of CVAT."""
    table = _table(source)
    return table is not None and read_xml(table).tag == "annotations"


def read(source: Path, images: Path | None) -> Found:
    """Read all images. An image without labels shows none of the classes."""
    table = _table(source)
    root = None if table is None else read_xml(table)
    if table is None or root is None or root.tag != "annotations":
        raise InputError(f"{source}: must be `CVAT for images 1.1`, an XML file with the root annotations")
    if root.find("track") is not None:
        raise InputError(f"{table}: must hold images, got tracks of a video; export `CVAT for images 1.1`")
    names = [label.text or "" for label in root.iterfind(".//labels/label/name")]
    found = Found(Files(images or table.parent), classes=names)
    for place, image in enumerate(root.iterfind("image")):
        where = f"{table}: image[{place}]"
        name = _attribute(image, "name", where)
        objects = [thing for thing in image if thing.tag not in WITHOUT_LABEL]
        tags = [_attribute(thing, "label", f"{where}: {thing.tag}") for thing in objects]
        size = _whole(image, "width", where), _whole(image, "height", where)
        shapes = [_shape(thing, size, f"{where}: {thing.tag}") for thing in objects if thing.tag != "tag"]
        if path := found.locate(name):
            split = SPLIT_NAMES.get(image.get("subset", "").lower(), "")
            found.add(path, split, tags, mask_of(shapes, size, tags))
    found.notes.append("photos without labels show none of the classes")
    return found


def _table(source: Path) -> Path | None:
    table = source / "annotations.xml" if source.is_dir() else source
    return table if table.suffix.lower() == ".xml" and table.exists() else None


def _attribute(element: Element, name: str, where: str) -> str:
    value = element.get(name)
    if not value:
        raise InputError(f"{where}: {name} must be text, got {shown(value)}")
    return value


def _whole(element: Element, name: str, where: str) -> int:
    value = number(element.get(name), f"{where}: {name}")
    if value % 1:
        raise InputError(f"{where}: {name} must be a whole number, got {value:g}")
    return int(value)


def _shape(element: Element, size: Size, where: str) -> Shape | None:
    """Return the outline of an object; None if it is a box, a line, points, ..."""
    label = _attribute(element, "label", where)
    if element.tag == "polygon":
        points = _attribute(element, "points", where).replace(";", ",").split(",")
        return Shape(label, [polygon(points, f"{where}: points")])
    return Shape(label, _runs(element, size, where)) if element.tag == "mask" else None


def _runs(element: Element, size: Size, where: str) -> Runs:
    box = [_whole(element, name, where) for name in ("left", "top", "width", "height")]
    texts = _attribute(element, "rle", where).split(",")
    counts = [int(number(text, f"{where}: rle")) for text in texts]
    return box_runs(counts, box, size, f"{where}: rle")
