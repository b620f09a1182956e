"""The small interface behind which every data source lives: `classes` and an iterator of rows."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

Content = Path | bytes
"""A file of the user's, or the bytes of one that was drawn or unpacked."""

SPLITS = ("train", "val", "test")

UNKNOWN = ("?",)
"""The tags of an image of which nobody knows what it shows: it is labelled, but nothing is learnt from it."""

Colour = tuple[int, int, int]
"""Red, green, blue, from 0 to 255."""


@dataclass(frozen=True)
class Row:
    """One image, as its source knows it; nothing of it has been checked yet.

    Attributes:
        origin: where it stands, for messages ("photos/tags.csv, line 7").
        image: its name in the data set, a relative path.
        split: "train", "val", or "test": images to label, of which nothing needs to be known.
        tags: the names of the classes that occur in it; (): none of them does; UNKNOWN.
        content: the image file.
        mask: its true classes, if any: a file that `plda.data.masks` reads.
        parts: which pixels tell its class, if known: 0 background, 1 telling, 2 body.
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
        rows: one for each image, read once.
        origin: where the rows stand, for messages.
        size: about how many bytes its files have, 0 if unknown.
        colours: what each class has in colour masks, if the source says so.
    """

    classes: tuple[str, ...]
    rows: Iterable[Row]
    origin: str
    size: int = 0
    colours: tuple[Colour, ...] | None = None
