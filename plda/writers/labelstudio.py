"""Label Studio: tasks.json with predictions as brush masks, and label_config.xml for the project.

https://labelstud.io/guide/predictions
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as XML

import numpy as np

from plda import __version__
from plda.data.images import PALETTE
from plda.writers.brush import decode, encode
from plda.writers.lines import read_records, write_records
from plda.writers.pieces import Labelled, Options, Picture

FILE, CONFIG = "tasks.json", "label_config.xml"
SERVED = "/data/local-files/?d="  # Label Studio serves files beneath its document root under this address


def write(folder: Path, labelled: Iterable[Labelled], options: Options) -> None:
    """Write both files. Photos are named relative to the folder that holds the folder of photos."""
    view = XML.Element("View")
    XML.SubElement(view, "Image", name="image", value="$image", zoom="true")
    labels = XML.SubElement(view, "BrushLabels", name="brush", toName="image")
    for name, colour in zip(options.classes[1:], PALETTE[1:].tolist(), strict=False):
        XML.SubElement(labels, "Label", value=name, background="#" + bytes(colour).hex())
    XML.indent(view)
    (folder / CONFIG).write_text(XML.tostring(view, encoding="unicode"), encoding="utf-8")
    write_records(folder / FILE, "[", (_task(each, options) for each in labelled), "]")


def read(
    folder: Path, _pictures: Sequence[Picture], options: Options
) -> Iterator[Iterable[tuple[int, np.ndarray]]]:
    """Yield the objects of each picture: class id and (H, W) bool pixels."""
    for task in read_records(folder / FILE):
        yield (_object(result, options.classes) for result in task["predictions"][0]["result"])


def _task(labelled: Labelled, options: Options) -> dict[str, Any]:
    picture, _, pieces, _ = labelled
    score = {} if picture.score is None else {"score": picture.score}
    results = [
        {
            "id": str(number),
            "type": "brushlabels",
            "from_name": "brush",
            "to_name": "image",
            "original_width": picture.width,
            "original_height": picture.height,
            "image_rotation": 0,
            **score,
            "value": {
                "format": "rle",
                "rle": encode(piece.pixels(picture.height, picture.width)),
                "brushlabels": [options.classes[piece.label]],
            },
        }
        for number, piece in enumerate(pieces, 1)
    ]
    prediction = {"model_version": f"plda {__version__}", **score, "result": results}
    return {
        "data": {"image": SERVED + quote(f"{options.photos}/{picture.file}")},
        "predictions": [prediction],
    }


def _object(result: dict[str, Any], classes: Sequence[str]) -> tuple[int, np.ndarray]:
    value = result["value"]
    pixels = decode(value["rle"], result["original_height"], result["original_width"])
    return classes.index(value["brushlabels"][0]), pixels
