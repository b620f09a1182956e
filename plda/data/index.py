"""index.csv: the table of a data set, one line per image.

Columns: image, split (train, val or test), tags (separated by `;`, in the order of the class list; `?` if
unknown), mask, parts (empty if missing), width, height. image, mask and parts are names of entries in the
data archive beside the table.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from plda.data.source import UNKNOWN


class Entry(NamedTuple):
    """One line of index.csv."""

    image: str
    split: str
    tags: tuple[str, ...]
    mask: str
    parts: str
    width: int
    height: int

    @property
    def known(self) -> bool:
        """Return whether the tags are known."""
        return self.tags != UNKNOWN

    @property
    def teaches(self) -> bool:
        """Return whether the image is used for training: split train, tags known."""
        return self.split == "train" and self.known

    @property
    def size(self) -> tuple[int, int]:
        """Return the image's size (height, width) in pixels."""
        return self.height, self.width

    @property
    def key(self) -> str:
        """Return the name of the image's maps and masks: its path without `images/` and extension."""
        return image_key(self.image.removeprefix("images/"))


def image_key(image: str) -> str:
    """Return an image's relative path without its extension."""
    return str(PurePosixPath(image).with_suffix(""))


def write_index(path: Path, entries: Iterable[Entry]) -> None:
    """Write the table."""
    frame = pd.DataFrame([e._replace(tags=";".join(e.tags)) for e in entries])  # type: ignore[arg-type]
    frame.to_csv(path, index=False)


def by_size(entries: Iterable[Entry], together: int, *, tags: bool = False) -> Iterator[list[Entry]]:
    """Yield groups of entries of the same size (and number of tags), at most `together` in each."""

    def size(entry: Entry) -> tuple[int, int, int]:
        return *entry.size, len(entry.tags) if tags else 0

    for _, same in groupby(sorted(entries, key=size), key=size):
        group = list(same)
        for i in range(0, len(group), together):
            yield group[i : i + together]


def evenly_spread(entries: Sequence[Entry], most: int) -> Sequence[Entry]:
    """Return at most `most` of the entries, evenly spread over them."""
    return entries[:: max(1, math.ceil(len(entries) / most))]


def read_index(path: Path) -> list[Entry]:
    """Read the table's entries, in order."""
    texts = dict.fromkeys(("image", "tags", "mask", "parts"), str)
    frame = pd.read_csv(path, keep_default_na=False, dtype=texts)
    frame["tags"] = [tuple(filter(None, tags.split(";"))) for tags in frame["tags"]]
    return [Entry(*row) for row in frame[[*Entry._fields]].itertuples(index=False, name=None)]
