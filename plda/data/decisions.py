"""decisions.csv: the table of a review of training images (docs/review.md), one line per decided image.

Columns:
    image: relative path of the image, as in tags.csv.
    decision: accept: the mask in the folder masks/ beside the table is used as it is.
        reject or wrong_class: the image teaches the segmentation network nothing.
        tags: the tags in the next column replace the given ones.
    tags: corrected tags, separated by `;`; empty for the other decisions.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

from plda.data.table import read_table
from plda.errors import InputError
from plda.files import write_text

TABLE, MASKS = "decisions.csv", "masks"
COLUMNS = ("image", "decision", "tags")

Kind = Literal["accept", "reject", "wrong_class", "tags"]


class Decision(NamedTuple):
    """What was decided about an image; `tags` are the corrected tags if `kind` is "tags"."""

    kind: Kind
    tags: tuple[str, ...] = ()


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
    text = io.StringIO()
    rows = ((image, kind, ";".join(tags)) for image, (kind, tags) in decisions.items())
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    write_text(folder / TABLE, text.getvalue())
