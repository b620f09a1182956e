"""The kinds of labelled data sets by name, in the order in which they are tried."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from plda.errors import InputError
from plda.readers import coco, cvat, folders, huggingface, labelstudio, table, voc, yolo
from plda.readers.found import Found


class Kind(NamedTuple):
    """A kind: whether a path is one, and its reader, which takes the path and the folder of the photos."""

    recognises: Callable[[Path], bool]
    read: Callable[[Path, Path | None], Found]


KINDS = {
    "huggingface": Kind(huggingface.recognises, huggingface.read),
    "yolo": Kind(yolo.recognises, yolo.read),
    "coco": Kind(coco.recognises, coco.read),
    "labelstudio": Kind(labelstudio.recognises, labelstudio.read),
    "cvat": Kind(cvat.recognises, cvat.read),
    "voc": Kind(voc.recognises, voc.read),
    "csv": Kind(table.recognises, table.read),
    "folders": Kind(folders.recognises, folders.read),
}


def kind_of(source: Path) -> str:
    """Return the name of the first kind that recognises a path.

    Raises:
        InputError: the path does not exist, no kind recognises it, or a file in it cannot be read.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    for name, kind in KINDS.items():
        if kind.recognises(source):
            return name
    raise InputError(f"{source}: must be one of the kinds {', '.join(KINDS)}; see docs/own-photos.md")
