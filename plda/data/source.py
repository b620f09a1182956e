"""The interface of all data sources: `classes` and an iterator of rows."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

Content = Path | bytes
"""The path of a user's file, or the bytes of a drawn or extracted file."""

SPLITS = ("train", "val", "test")

UNKNOWN = ("?",)
"""The tags of an image whose classes are unknown: it is labelled, but not used for training."""

Colour = tuple[int, int, int]
"""Red, green, blue, from 0 to 255."""


@dataclass(frozen=True)
class Row:
    """One image from a source, not checked yet.

    Attributes:
        origin: position of the row, for messages ("photos/tags.csv, line 7").
        image: name of the image in the data set, a relative path.
        split: "train", "val", or "test": images to label, which need no tags.
        tags: names of the classes in the image; (): none of the classes; UNKNOWN.
        content: the image file.
        mask: the true mask, if any: a file that `plda.sources.true_masks` reads.
        parts: mask of the parts, if known: 0 background, 1 telling, 2 body.
    """

    origin: str
    image: str
    split: str
    tags: tuple[str, ...]
    content: Content
    mask: Content | None = None
    parts: Content | None = None


@dataclass(frozen=True)
class Source:
    """A data set before it is indexed.

    Attributes:
        classes: class names, background first.
        rows: one row per image, read once.
        origin: source of the rows, for messages.
        size: approximate size of all files in bytes, 0 if unknown.
        colours: colour of each class in colour masks, if known.
    """

    classes: tuple[str, ...]
    rows: Iterable[Row]
    origin: str
    size: int = 0
    colours: tuple[Colour, ...] | None = None
