"""PASCAL VOC: a palette mask per image, and the boxes of the objects in XML.

http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree as XML

import numpy as np

from plda.data.images import PALETTE, VOID, encode_mask, read_mask
from plda.errors import InputError
from plda.writers.photos import copy_photo
from plda.writers.pieces import Labelled, Options, Picture, Piece, find_pieces

SIDES = ("xmin", "ymin", "xmax", "ymax")


def write(folder: Path, labelled: Iterable[Labelled], options: Options) -> None:
    """Write the data set. Pixels of pieces that are left out become VOID.

    Raises:
        InputError: a class name has a colon, which separates the fields of labelmap.txt.
    """
    for name in options.classes:
        if ":" in name:
            raise InputError(f"classes: a name must not have a colon in the format voc, got {name!r}")
    for part in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets/Segmentation"):
        (folder / part).mkdir(parents=True)
    names = []
    for picture, ids, pieces, _ in labelled:
        file = copy_photo(picture, folder / "JPEGImages")
        _write(folder / f"SegmentationClass/{picture.name}.png", encode_mask(_kept(ids, pieces)))
        _write(folder / f"Annotations/{picture.name}.xml", _annotation(picture, file, pieces, options))
        names.append(f"{picture.name}\n")
    (folder / "ImageSets/Segmentation/train.txt").write_text("".join(names), encoding="utf-8")
    colours = (",".join(map(str, colour)) for colour in PALETTE.tolist())
    lines = [f"{name}:{colour}::\n" for name, colour in zip(options.classes, colours, strict=False)]
    lines.append(f"ignored:{','.join(map(str, PALETTE[VOID].tolist()))}::\n")  # as Datumaro names VOID
    text = "# label:color_rgb:parts:actions\n" + "".join(lines)
    (folder / "labelmap.txt").write_text(text, encoding="utf-8")


def read(
    folder: Path, pictures: Sequence[Picture], options: Options
) -> Iterator[Iterable[tuple[int, np.ndarray]]]:
    """Yield the objects of each picture: class id, and (H, W) bool pixels, the piece that fills its box."""
    for picture in pictures:
        ids = read_mask((folder / f"SegmentationClass/{picture.name}.png").read_bytes())
        root = XML.parse(folder / f"Annotations/{picture.name}.xml")
        yield (_object(found, ids, options.classes) for found in root.iter("object"))


def _kept(ids: np.ndarray, pieces: Sequence[Piece]) -> np.ndarray:
    kept = np.where(ids == 0, 0, VOID).astype(np.uint8)
    for piece in pieces:
        height, width = piece.inside.shape
        box = kept[piece.top : piece.top + height, piece.left : piece.left + width]
        box[piece.inside] = piece.label
    return kept


def _annotation(picture: Picture, file: str, pieces: Sequence[Piece], options: Options) -> bytes:
    root = XML.Element("annotation")
    size = {"width": picture.width, "height": picture.height, "depth": 3}
    _add(root, {"folder": "JPEGImages", "filename": file})
    _add(XML.SubElement(root, "size"), size)
    _add(root, {"segmented": 1})
    for piece in pieces:
        height, width = piece.inside.shape
        sides = (piece.left + 1, piece.top + 1, piece.left + width, piece.top + height)  # VOC counts from 1
        element = XML.SubElement(root, "object")
        _add(element, {"name": options.classes[piece.label], "pose": "Unspecified"})
        _add(element, {"truncated": 0, "difficult": 0})
        _add(XML.SubElement(element, "bndbox"), dict(zip(SIDES, sides, strict=True)))
    XML.indent(root)
    return XML.tostring(root, encoding="unicode").encode()


def _add(element: XML.Element, fields: dict[str, str] | dict[str, int]) -> None:
    for name, value in fields.items():
        XML.SubElement(element, name).text = str(value)


def _object(element: XML.Element, ids: np.ndarray, classes: Sequence[str]) -> tuple[int, np.ndarray]:
    label = classes.index(element.findtext("name", ""))
    left, top, right, bottom = (int(element.findtext(f"bndbox/{side}", "0")) for side in SIDES)
    box = (slice(top - 1, bottom), slice(left - 1, right))
    same = np.where(ids[box] == label, np.uint8(1), np.uint8(0))
    pixels = np.zeros(ids.shape, bool)
    for piece in find_pieces(same)[0]:
        if piece.inside.shape == same.shape:  # no two pieces can touch all four sides
            pixels[box] = piece.inside
    return label, pixels


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
