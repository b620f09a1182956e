"""Datumaro: annotations/default.json with polygons or run lengths; images/default/.

https://open-edge-platform.github.io/datumaro
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from plda.writers.coco import run_lengths
from plda.writers.lines import read_records, write_records
from plda.writers.photos import copy_photo
from plda.writers.pieces import Labelled, Options, Picture
from plda.writers.polygons import fill_centres, outline

FILE = "annotations/default.json"


def write(folder: Path, labelled: Iterable[Labelled], options: Options) -> None:
    """Write the data set. A label is the class id less one: background has no number."""
    labels = [{"name": name, "parent": "", "attributes": []} for name in options.classes[1:]]
    about = {
        "dm_format_version": "1.0",
        "media_type": 2,  # images
        "infos": {},
        "categories": {"label": {"labels": labels, "label_groups": [], "attributes": ["score"]}},
    }
    before = json.dumps(about, ensure_ascii=False).removesuffix("}") + ', "items": ['
    write_records(folder / FILE, before, (_item(folder, each, options) for each in labelled), "]}")


def read(
    folder: Path, pictures: Sequence[Picture], _options: Options
) -> Iterator[Iterable[tuple[int, np.ndarray]]]:
    """Yield the objects of each picture: class id and (H, W) bool pixels."""
    for picture, item in zip(pictures, read_records(folder / FILE), strict=True):
        yield ((each["label_id"] + 1, _pixels(each, picture)) for each in item["annotations"])


def _item(folder: Path, labelled: Labelled, options: Options) -> dict[str, Any]:
    picture, _, pieces, _ = labelled
    annotations = []
    for number, piece in enumerate(pieces, 1):
        if options.rle:
            shape = {"type": "mask", "rle": run_lengths(piece, picture.height, picture.width)}
        else:
            shape = {"type": "polygon", "points": outline(piece, options.tolerance).ravel().tolist()}
        score = {} if picture.score is None else {"score": picture.score}
        common = {"id": number, "group": number, "label_id": piece.label - 1, "z_order": 0}
        annotations.append({**common, "attributes": score, **shape})
    file = copy_photo(picture, folder / "images/default")
    return {
        "id": picture.name,
        "annotations": annotations,
        "image": {"path": file, "size": [picture.height, picture.width]},
    }


def _pixels(annotation: dict[str, Any], picture: Picture) -> np.ndarray:
    if annotation["type"] == "mask":
        return np.asarray(coco_mask.decode(annotation["rle"]), dtype=bool)
    polygon = np.array(annotation["points"]).reshape(-1, 2)
    return fill_centres(polygon, picture.height, picture.width)
