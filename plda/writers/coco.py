"""COCO: annotations.json, one annotation per object, as polygon or run lengths (RLE).

https://cocodataset.org/#format-data
"""

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from plda.writers.lines import write_records
from plda.writers.pieces import Labelled, Options, Picture, Piece
from plda.writers.polygons import outline

FILE = "annotations.json"


def write(folder: Path, labelled: Iterable[Labelled], options: Options) -> None:
    """Write the file. Category ids are class ids; background is no category."""
    images: list[dict[str, Any]] = []
    categories = json.dumps(_categories(options), ensure_ascii=False)
    before = f'{{"categories": {categories}, "annotations": ['
    records = _annotations(labelled, options, images)
    write_records(folder / FILE, before, records, "]")
    with (folder / FILE).open("r+", encoding="utf-8") as stream:
        stream.seek(0, io.SEEK_END)
        lines = ",\n".join(json.dumps(image, ensure_ascii=False) for image in images)
        stream.write(f', "images": [\n{lines}\n]}}\n')


def content(labelled: Labelled, options: Options) -> dict[str, Any]:
    """Return the content of the file for one picture, whose id is 1."""
    images: list[dict[str, Any]] = []
    annotations = list(_annotations([labelled], options, images))
    return {"categories": _categories(options), "annotations": annotations, "images": images}


def read(folder: Path, pictures: Sequence[Picture], _options: Options) -> Iterator[Iterable[Any]]:
    """Yield the objects of each picture, class id and (H, W) bool pixels, as pycocotools reads them."""
    with redirect_stdout(io.StringIO()):  # it prints how long reading took
        coco = COCO(folder / FILE)
    by_name = {image["file_name"]: number for number, image in coco.imgs.items()}
    for picture in pictures:
        found = coco.imgToAnns[by_name[picture.file]]
        yield ((each["category_id"], coco.annToMask(each).astype(bool)) for each in found)


def run_lengths(piece: Piece, height: int, width: int) -> dict[str, Any]:
    """Return an object as pycocotools' run lengths in an image of the given size."""
    runs = coco_mask.encode(np.asfortranarray(piece.pixels(height, width), np.uint8))
    return {"size": [height, width], "counts": runs["counts"].decode("ascii")}


def _categories(options: Options) -> list[dict[str, Any]]:
    return [{"id": i, "name": name} for i, name in enumerate(options.classes) if i]


def _annotations(
    labelled: Iterable[Labelled], options: Options, images: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield the annotations, and append the images to `images`."""
    count = 0
    for number, (picture, _, pieces, _) in enumerate(labelled, 1):
        size = {"width": picture.width, "height": picture.height}
        images.append({"id": number, "file_name": picture.file, **size})
        for piece in pieces:
            count += 1
            height, width = piece.inside.shape
            yield {
                "id": count,
                "image_id": number,
                "category_id": piece.label,
                "segmentation": run_lengths(piece, picture.height, picture.width)
                if options.rle
                else [outline(piece, options.tolerance).ravel().tolist()],
                "area": piece.area,
                "bbox": [piece.left, piece.top, width, height],
                "iscrowd": 0,
            } | ({} if picture.score is None else {"score": picture.score})
