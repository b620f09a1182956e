"""CVAT for images 1.1: annotations.xml with polygons, or with masks as run lengths of their box.

https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree as XML

import numpy as np

from plda.data.images import PALETTE
from plda.writers.pieces import Labelled, Options, Picture, Piece
from plda.writers.polygons import fill_centres, outline

FILE = "annotations.xml"


def write(folder: Path, labelled: Iterable[Labelled], options: Options) -> None:
    """Write the file."""
    meta = XML.Element("meta")
    labels = XML.SubElement(XML.SubElement(meta, "task"), "labels")
    for name, colour in zip(options.classes[1:], PALETTE[1:].tolist(), strict=False):
        label = XML.SubElement(labels, "label")
        XML.SubElement(label, "name").text = name
        XML.SubElement(label, "color").text = "#" + bytes(colour).hex()
        XML.SubElement(label, "attributes")
    with (folder / FILE).open("wb") as stream:
        stream.write(b'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
        stream.write(_text(meta))
        for number, each in enumerate(labelled):
            stream.write(_text(_image(number, each, options)))
        stream.write(b"</annotations>\n")


def read(
    folder: Path, _pictures: Sequence[Picture], options: Options
) -> Iterator[Iterable[tuple[int, np.ndarray]]]:
    """Yield the objects of each picture: class id and (H, W) bool pixels."""
    for _, image in XML.iterparse(folder / FILE):
        if image.tag == "image":
            height, width = int(image.attrib["height"]), int(image.attrib["width"])
            yield (_object(shape, height, width, options.classes) for shape in image)
            image.clear()


def _image(number: int, labelled: Labelled, options: Options) -> XML.Element:
    picture, _, pieces, _ = labelled
    size = {"width": str(picture.width), "height": str(picture.height)}
    image = XML.Element("image", {"id": str(number), "name": picture.file, **size})
    for piece in pieces:
        shape = _mask(piece) if options.rle else _polygon(piece, options.tolerance)
        common = {"label": options.classes[piece.label], "source": "auto", "occluded": "0", "z_order": "0"}
        XML.SubElement(image, "mask" if options.rle else "polygon", common | shape)
    return image


def _polygon(piece: Piece, tolerance: float) -> dict[str, str]:
    return {"points": ";".join(f"{x:.2f},{y:.2f}" for x, y in outline(piece, tolerance).tolist())}


def _mask(piece: Piece) -> dict[str, str]:
    """Return the lengths of the runs outside, inside, ..., row by row, and the box."""
    height, width = piece.inside.shape
    flat = np.concatenate([[False], piece.inside.ravel()])  # the first run is outside, of length 0 or more
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]), flat.size - 1)
    lengths = np.diff(ends, prepend=0)
    box = {"left": piece.left, "top": piece.top, "width": width, "height": height}
    return {"rle": ", ".join(map(str, lengths.tolist())), **{key: str(value) for key, value in box.items()}}


def _object(shape: XML.Element, height: int, width: int, classes: Sequence[str]) -> tuple[int, np.ndarray]:
    label = classes.index(shape.attrib["label"])
    if shape.tag == "polygon":
        points = [point.split(",") for point in shape.attrib["points"].split(";")]
        return label, fill_centres(np.array(points, dtype=float), height, width)
    left, top, columns, rows = (int(shape.attrib[key]) for key in ("left", "top", "width", "height"))
    lengths = [int(length) for length in shape.attrib["rle"].split(",")]
    inside = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(rows, columns)
    pixels = np.zeros((height, width), bool)
    pixels[top : top + rows, left : left + columns] = inside
    return label, pixels


def _text(element: XML.Element) -> bytes:
    XML.indent(element)
    return f"{XML.tostring(element, encoding='unicode')}\n".encode()
