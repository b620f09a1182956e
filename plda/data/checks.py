"""What a row must be before anything is trained on it. Every fault is found, then all are refused at once."""

from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from PIL import Image

from plda.data.images import VOID, encode_mask, keep_image, read_file, read_mask
from plda.data.index import Entry, image_key
from plda.data.source import SPLITS, Content, Row, Source
from plda.errors import InputError

NEEDED = ("train", "val")
MOST_SHOWN = 20  # enough faults to see the pattern, few enough to read

Size = tuple[int, int]  # width, height
T = TypeVar("T")


class Checker:
    """Checks the rows of a source one by one and collects what is wrong with them."""

    def __init__(self, source: Source, long_side: int | None) -> None:
        self._ids = {name: number for number, name in enumerate(source.classes)}
        self._origin, self._long_side = source.origin, long_side
        self._seen: dict[str, str] = {}
        self._splits: set[str] = set()
        self._faults: list[str] = []

    def check(self, row: Row) -> tuple[Entry, dict[str, bytes]] | None:
        """Check one row.

        Returns:
            Its line of the index and the files to keep, by name; None where something is wrong with it.
        """
        before = len(self._faults)
        self._splits.add(row.split)
        self._collect(row, "image", partial(self._check_name, row))
        self._collect(row, "split", partial(self._check_split, row))
        self._collect(row, "tags", partial(self._check_tags, row))
        kept = self._collect(row, "image", partial(_keep, row, self._long_side)) if row.image else None
        if kept is None:
            return None
        content, given, size = kept
        files: dict[str, bytes] = {f"images/{row.image}": content}
        names = {"mask": "", "parts": ""}
        for field, folder, most in (("mask", "masks", len(self._ids) - 1), ("parts", "parts", 2)):
            raw: Content | None = getattr(row, field)
            if raw is not None:
                names[field] = f"{folder}/{image_key(row.image)}.png"
                mask = self._collect(row, field, partial(_keep_mask, raw, given, size, most))
                files[names[field]] = mask or b""
        if len(self._faults) > before:
            return None
        tags = tuple(sorted(row.tags, key=self._ids.__getitem__))
        entry = Entry(f"images/{row.image}", row.split, tags, names["mask"], names["parts"], *size)
        return entry, files

    def finish(self) -> None:
        """Refuse the data set if any row was wrong or a split has no image.

        Raises:
            InputError: a line for each fault, naming file, line and field.
        """
        for split in NEEDED:
            if split not in self._splits:
                self._faults.append(f"{self._origin}: field split: no image has split {split!r}")
        if self._faults:
            more = len(self._faults) - MOST_SHOWN
            rest = [f"... and {more} more"] if more > 0 else []
            raise InputError("\n".join(self._faults[:MOST_SHOWN] + rest))

    def _collect(self, row: Row, field: str, check: Callable[[], T]) -> T | None:
        """What `check` returns, or None and a fault noted where it refuses."""
        try:
            return check()
        except InputError as error:
            self._faults.append(f"{row.origin}: field {field}: {error}")
            return None

    def _check_name(self, row: Row) -> None:
        path = PurePosixPath(row.image)
        if not row.image:
            raise InputError("is empty")
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{row.image!r} must be a path inside the folder")
        first = self._seen.setdefault(image_key(row.image), row.origin)
        if first != row.origin:
            raise InputError(f"{row.image!r} is there already, see {first} (endings do not count)")

    def _check_split(self, row: Row) -> None:
        if row.split not in SPLITS:
            raise InputError(f"{row.split!r} is none of {', '.join(SPLITS)}")

    def _check_tags(self, row: Row) -> None:
        if not row.tags and row.split != "test":
            raise InputError("no tag: name the classes in the image, or leave it out")
        for tag in row.tags:
            if tag not in self._ids:
                raise InputError(f"{tag!r} is not in the class list")
            if self._ids[tag] == 0:
                raise InputError(f"{tag!r} is no tag: it is everywhere")
            if row.tags.count(tag) > 1:
                raise InputError(f"{tag!r} stands there twice")


def _keep(row: Row, long_side: int | None) -> tuple[bytes, Size, Size]:
    try:
        return keep_image(_bytes(row.content), long_side)
    except InputError as error:
        raise InputError(f"{row.image}: {error}") from error


def _bytes(content: Content) -> bytes:
    return read_file(content) if isinstance(content, Path) else content


def _keep_mask(content: Content, given: Size, kept: Size, most: int) -> bytes:
    """Check a mask against its image's size as given, and bring it to the size at which the image is kept."""
    name = content.name if isinstance(content, Path) else "mask"
    try:
        ids = read_mask(_bytes(content))
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    height, width = ids.shape
    if (width, height) != given:
        raise InputError(f"{name}: is {width}x{height}, its image is {given[0]}x{given[1]}")
    wrong = np.setdiff1d(ids, [*range(most + 1), VOID])
    if wrong.size:
        raise InputError(f"{name}: holds id {wrong[0]}; ids go from 0 to {most}, {VOID} is void")
    return encode_mask(np.asarray(Image.fromarray(ids).resize(kept, Image.Resampling.NEAREST)))
