"""Decisions of a person about the masks of training images (docs/review.md).

A review is a folder. Its table decisions.csv has one line per decided image, with the columns:

    image: relative path of the image, as in tags.csv.
    decision: accept: the mask in the folder's masks/ is used as it is.
        reject or wrong_class: the image teaches the segmentation network nothing.
        tags: the tags in the next column replace the given ones.
    tags: corrected tags, separated by `;`; empty for the other decisions.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

import pandas as pd

from plda.data.data_set import DataSet
from plda.data.images import VOID
from plda.data.index import Entry
from plda.data.table import read_table
from plda.errors import InputError
from plda.files import write_text
from plda.masks.folder import Masks, mask_path

TABLE, MASKS = "decisions.csv", "masks"
COLUMNS = ("image", "decision", "tags")

Kind = Literal["accept", "reject", "wrong_class", "tags"]


class Decision(NamedTuple):
    """What was decided about an image; `tags` are the corrected tags if `kind` is "tags"."""

    kind: Kind
    tags: tuple[str, ...] = ()


class Review:
    """The decisions of a review about the training images of a data set; others are ignored."""

    def __init__(self, folder: Path, data: DataSet) -> None:
        """Read the table.

        Raises:
            InputError: the table is missing or invalid.
        """
        training = {image_name(entry) for entry in data.training}
        decided = read_decisions(folder, data.classes)
        self._decided = {image: decision for image, decision in decided.items() if image in training}

    def accepts(self, entry: Entry) -> bool:
        """Return whether the accepted mask of an image is to be used as it is."""
        return self._kind(entry) == "accept"

    def rejects(self, entry: Entry) -> bool:
        """Return whether an image teaches the segmentation network nothing."""
        return self._kind(entry) in ("reject", "wrong_class")

    def keeps(self, entry: Entry) -> bool:
        """Return whether the pseudo-mask of an image is final."""
        return self.accepts(entry) or self.rejects(entry)

    def corrected(self, entry: Entry) -> Entry:
        """Return the entry with its corrected tags, if it has any."""
        decision = self._decided.get(image_name(entry))
        return entry._replace(tags=decision.tags) if decision and decision.kind == "tags" else entry

    def write(self, folder: Path) -> None:
        """Write the decisions as the table of `folder`."""
        write_decisions(folder, self._decided)

    def _kind(self, entry: Entry) -> Kind | None:
        decision = self._decided.get(image_name(entry))
        return decision and decision.kind


def image_name(entry: Entry) -> str:
    """Return the name of an image in the table."""
    return entry.image.removeprefix("images/")


def accepted_masks(folder: Path, entries: Iterable[Entry], classes: int) -> Masks:
    """Return a reader of the accepted masks of a review, after a check of those of `entries`.

    Raises:
        InputError: a mask is missing or unreadable, has another size than its image, or unknown ids.
    """
    masks = Masks(folder / MASKS)
    for entry in entries:
        path = mask_path(folder / MASKS, entry)
        try:
            ids = masks(entry)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read: {error.strerror}; {TABLE} accepts this mask"
            ) from error
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        if ids.shape != entry.size:
            raise InputError(
                f"{path}: size must be that of the image, {entry.width} x {entry.height}, "
                f"got {ids.shape[1]} x {ids.shape[0]}"
            )
        wrong = ids[(ids >= classes) & (ids != VOID)]
        if wrong.size:
            raise InputError(f"{path}: ids must be 0 to {classes - 1} or {VOID} (undecided), got {wrong[0]}")
    return masks


def read_decisions(folder: Path, classes: Iterable[str]) -> dict[str, Decision]:
    """Read a review's table.

    Args:
        folder: the review.
        classes: class names, background first.

    Returns:
        The decisions by image, in the table's order.

    Raises:
        InputError: the table is missing or invalid.
    """
    table, (_, *names) = folder / TABLE, classes
    found: dict[str, Decision] = {}
    for line, record in read_table(table, COLUMNS):
        image = record["image"]
        kind = cast(Kind, record["decision"])
        tags = tuple(filter(None, (tag.strip() for tag in record["tags"].split(";"))))
        where = f"{table}: line {line}"
        if image in found:
            raise InputError(f"{where}: image: must not occur twice, got {image!r} again")
        if kind not in get_args(Kind):
            raise InputError(f"{where}: decision: must be one of {', '.join(get_args(Kind))}, got {kind!r}")
        if tags and kind != "tags":
            raise InputError(f"{where}: tags: must be empty with the decision {kind}, got {record['tags']!r}")
        for tag in tags:
            if tag not in names:
                raise InputError(f"{where}: tags: must be classes ({', '.join(names)}), got {tag!r}")
        found[image] = Decision(kind, tuple(name for name in names if name in tags))
    return found


def write_decisions(folder: Path, decisions: Mapping[str, Decision]) -> None:
    """Write a review's table, atomically: the decisions by image, in their order."""
    rows = [(image, kind, ";".join(tags)) for image, (kind, tags) in decisions.items()]
    write_text(folder / TABLE, pd.DataFrame(rows, columns=[*COLUMNS]).to_csv(index=False))
