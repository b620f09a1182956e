"""Validation of rows before training. All faults are collected and reported together."""

import unicodedata
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from PIL import Image

from plda.data.images import VOID, encode_mask, keep_image, read_file
from plda.data.index import Entry, image_key
from plda.data.source import SPLITS, UNKNOWN, Colour, Content, Row, Source
from plda.errors import InputError
from plda.sources.true_masks import read_true_mask

NEEDED = ("train", "val")
MOST_SHOWN = 20  # faults in a message: enough to see the pattern, few enough to read

Size = tuple[int, int]  # width, height
T = TypeVar("T")


class Checker:
    """A checker of a source's rows, one by one. It collects all faults.

    Attributes:
        warnings: values that are allowed but probably unintended; complete after `finish`.
    """

    def __init__(self, source: Source, long_side: int | None) -> None:
        self._ids = {name: number for number, name in enumerate(source.classes)}
        self._origin, self._long_side, self._colours = source.origin, long_side, source.colours
        self._seen: dict[str, str] = {}
        self._splits: set[str] = set()
        self._taught: set[str] = set()  # tags of training images
        self._tagged: set[str] = set()
        self._first_mask: dict[int, str] = {}  # by id: the row and the file of the first mask that has it
        self._faults: list[str] = []
        self.warnings: list[str] = []

    def check(self, row: Row) -> tuple[Entry, dict[str, bytes]] | None:
        """Check one row.

        Returns:
            The row's line of the index, and the files to keep, by name; None if the row has a fault.
        """
        before = len(self._faults)
        self._splits.add(row.split)
        self._tagged |= set(row.tags)
        if row.split == "train":
            self._taught |= set(row.tags)
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
                mask = self._collect(row, field, partial(_read_mask, raw, given, most, self._colours))
                if mask is not None:
                    files[names[field]] = _keep_mask(mask, size)
                    if field == "mask":
                        self._compare(row, mask)
        if len(self._faults) > before:
            return None
        known = row.tags != UNKNOWN
        tags = tuple(sorted(row.tags, key=self._ids.__getitem__)) if known else UNKNOWN
        entry = Entry(f"images/{row.image}", row.split, tags, names["mask"], names["parts"], *size)
        return entry, files

    def finish(self) -> None:
        """Reject the data set if a row has a fault, a split has no image, or no training image has a tag.

        Raises:
            InputError: one line per fault, which names file, line and field.
        """
        for split in NEEDED:
            if split not in self._splits:
                self._faults.append(f"{self._origin}: field split: no image has split {split!r}")
        if "train" in self._splits and not self._taught - set(UNKNOWN):
            self._faults.append(f"{self._origin}: field tags: no training image has a tag")
        if self._faults:
            raise InputError("\n".join(first_of(self._faults)))
        for name, class_id in self._ids.items():
            place = self._first_mask.get(class_id)
            if class_id and place and name not in self._tagged:
                self.warnings.append(f"{place} holds id {class_id}, {name!r}, but no image has this tag")

    def _compare(self, row: Row, mask: np.ndarray) -> None:
        """Record the ids in a row's mask, and warn if none of the row's tags is among them."""
        held = [int(class_id) for class_id in np.unique(mask)]
        place = f"{row.origin}: field mask: {_name(row.mask)}"
        for class_id in held:
            self._first_mask.setdefault(class_id, place)
        wanted = [self._ids[tag] for tag in row.tags if tag in self._ids]
        if wanted and not set(wanted) & set(held):
            advice = f"; {VOID} means void: mark objects by their class id" if held == [0, VOID] else ""
            self.warnings.append(
                f"{place} holds ids {_listed(held)}, but none of its tags' ids, {_listed(wanted)} "
                f"({', '.join(row.tags)}){advice}"
            )

    def _collect(self, row: Row, field: str, check: Callable[[], T]) -> T | None:
        """Return what `check` returns; if it raises InputError, record the fault and return None."""
        try:
            return check()
        except InputError as error:
            self._faults.append(f"{row.origin}: field {field}: {error}")
            return None

    def _check_name(self, row: Row) -> None:
        path = PurePosixPath(row.image)
        if not path.name:  # "." has no name, either
            raise InputError("is empty")
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{row.image!r} must be a path inside the folder")
        if any(unicodedata.category(character) == "Cc" for character in row.image):
            raise InputError(f"{row.image!r} must not contain line breaks or other control characters")
        first = self._seen.setdefault(image_key(row.image), row.origin)
        if first != row.origin:
            raise InputError(f"duplicate image {row.image!r}, first in {first} (file extensions are ignored)")

    def _check_split(self, row: Row) -> None:
        if row.split not in SPLITS:
            raise InputError(f"must be one of {', '.join(SPLITS)}, got {row.split!r}")

    def _check_tags(self, row: Row) -> None:
        if row.tags == UNKNOWN:
            return
        for tag in row.tags:
            if tag in UNKNOWN:
                raise InputError(
                    f"'?' means that the tags are unknown; it must be the only tag, got {row.tags}"
                )
            if tag not in self._ids:
                alike = [name for name in self._ids if name.lower() == tag.lower()]
                raise InputError(
                    f"{tag!r} is not in the class list" + (f"; did you mean {alike[0]!r}?" if alike else "")
                )
            if self._ids[tag] == 0:
                raise InputError(f"{tag!r} cannot be a tag: leave the field empty if no class occurs")
            if row.tags.count(tag) > 1:
                raise InputError(f"duplicate tag {tag!r}")


def first_of(lines: Sequence[str]) -> list[str]:
    """Return the first MOST_SHOWN lines, and one line with the number of the others."""
    more = len(lines) - MOST_SHOWN
    return [*lines[:MOST_SHOWN], *([f"... and {more} more"] if more > 0 else [])]


def _keep(row: Row, long_side: int | None) -> tuple[bytes, Size, Size]:
    try:
        return keep_image(_bytes(row.content), long_side)
    except InputError as error:
        raise InputError(f"{row.image}: {error}") from error


def _bytes(content: Content) -> bytes:
    return read_file(content) if isinstance(content, Path) else content


def _read_mask(content: Content, size: Size, most: int, colours: Sequence[Colour] | None) -> np.ndarray:
    try:
        return read_true_mask(_bytes(content), size, most, colours)
    except InputError as error:
        raise InputError(f"{_name(content)}: {error}") from error


def _keep_mask(ids: np.ndarray, size: Size) -> bytes:
    """Encode the mask at the size at which its image is kept."""
    return encode_mask(np.asarray(Image.fromarray(ids).resize(size, Image.Resampling.NEAREST)))


def _name(content: Content | None) -> str:
    return content.name if isinstance(content, Path) else "mask"


def _listed(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids))
