"""A user's own photos: a folder with `classes.txt` and `tags.csv`.

classes.txt has one class name a line, background first. tags.csv has the columns image, split, tags and,
if there are any, mask: paths relative to the folder, tags separated by `;`.
"""

import csv
from pathlib import Path

from plda.data.classes import read_classes
from plda.data.source import Row, Source
from plda.errors import InputError

CLASSES, TAGS = "classes.txt", "tags.csv"


def read_folder(folder: Path) -> Source:
    """Read the two tables of `folder`; the images are read later, one by one.

    Raises:
        InputError: a table is missing, unreadable, or lacks a column.
    """
    import pandas as pd  # Snakemake reads this module at each start; pandas takes half a second

    table = folder / TAGS
    try:
        frame = pd.read_csv(table, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(
            f"{table}: is missing; it has a line `image,split,tags,mask` and one for each photo"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{table}: cannot be read: {error}") from error
    for column in ("image", "split", "tags"):
        if column not in frame.columns:
            raise InputError(f"{table}: column {column!r} is missing")
    classes = read_classes(folder / CLASSES)
    records = (dict(zip(frame.columns, values, strict=True)) for values in frame.itertuples(index=False))
    rows = [_row(folder, line, record) for line, record in enumerate(records, 2)]
    files = [row.content for row in rows if isinstance(row.content, Path)]
    size = sum(file.stat().st_size for file in files if file.is_file())
    return Source(classes, rows, str(table), size)


def named_files(folder: Path) -> list[Path]:
    """Return the images and masks that `tags.csv` names, as far as it can be read; they may be missing."""
    try:
        with (folder / TAGS).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as table:
            rows = list(csv.DictReader(table))
    except (OSError, csv.Error):
        return []
    names = (row.get(column) for row in rows for column in ("image", "mask"))
    return [folder / name.strip() for name in names if name]


def _row(folder: Path, line: int, record: dict[str, str]) -> Row:
    mask = record.get("mask", "").strip()
    return Row(
        origin=f"{folder / TAGS}, line {line}",
        image=record["image"].strip(),
        split=record["split"].strip(),
        tags=tuple(tag.strip() for tag in record["tags"].split(";") if tag.strip()),
        content=folder / record["image"].strip(),
        mask=folder / mask if mask else None,
    )
