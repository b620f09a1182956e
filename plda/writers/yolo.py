"""YOLO segmentation: labels/NAME.txt, a line per object with class and polygon; images/, data.yaml.

Coordinates are shares of width and height; programs that read YOLO fill polygons with OpenCV. https://docs.ultralytics.com/datasets/segment
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import yaml

from plda.writers.photos import copy_photo
from plda.writers.pieces import Labelled, Options, Picture
from plda.writers.polygons import DRAWN, fill_rounded, outline


def write(folder: Path, labelled: Iterable[Labelled], options: Options) -> None:
    """Write the data set. A YOLO class is the class id less one: background has no number."""
    (folder / "images").mkdir(parents=True)
    for picture, _, pieces, _ in labelled:
        copy_photo(picture, folder / "images")
        lines = []
        for piece in pieces:
            shares = outline(piece, options.tolerance, DRAWN) / (picture.width, picture.height)
            numbers = " ".join(f"{share:.7f}" for share in shares.ravel())
            lines.append(f"{piece.label - 1} {numbers}\n")
        path = folder / "labels" / f"{picture.name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")
    about = {"train": "images", "val": "images", "names": dict(enumerate(options.classes[1:]))}
    text = yaml.safe_dump(about, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8")


def read(
    folder: Path, pictures: Sequence[Picture], options: Options
) -> Iterator[Iterable[tuple[int, np.ndarray]]]:
    """Yield the objects of each picture: class id and (H, W) bool pixels."""
    names = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))["names"]
    for picture in pictures:
        lines = (folder / "labels" / f"{picture.name}.txt").read_text(encoding="utf-8").splitlines()
        yield (_object(line, picture, names, options.classes) for line in lines)


def _object(
    line: str, picture: Picture, names: dict[int, str], classes: Sequence[str]
) -> tuple[int, np.ndarray]:
    label, *numbers = line.split()
    polygon = np.array(numbers, dtype=float).reshape(-1, 2) * (picture.width, picture.height)
    return classes.index(names[int(label)]), fill_rounded(polygon, picture.height, picture.width)
