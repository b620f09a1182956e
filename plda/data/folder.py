"""A user's own photos: a folder with `classes.txt` and `tags.csv`.

classes.txt has one class name a line, background first. tags.csv has the columns image, split, tags and,
if there are any, mask: paths relative to the folder, tags separated by `;`.
"""

from pathlib import Path

import pandas as pd

from plda.data.classes import read_classes
from plda.data.source import Row, Source
from plda.errors import InputError


def read_folder(folder: Path) -> Source:
    """Read the two tables of `folder`; the images are read later, one by one.

    Raises:
        InputError: a table is missing, unreadable, or lacks a column.
    """
    table = folder / "tags.csv"
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
    classes = read_classes(folder / "classes.txt")
    records = (dict(zip(frame.columns, values, strict=True)) for values in frame.itertuples(index=False))
    rows = [_row(folder, line, record) for line, record in enumerate(records, 2)]
    files = [row.content for row in rows if isinstance(row.content, Path)]
    size = sum(file.stat().st_size for file in files if file.is_file())
    return Source(classes, rows, str(table), size)


def _row(folder: Path, line: int, record: dict[str, str]) -> Row:
    mask = record.get("mask", "").strip()
    return Row(
        origin=f"{folder / 'tags.csv'}, line {line}",
        image=record["image"].strip(),
        split=record["split"].strip(),
        tags=tuple(tag.strip() for tag in record["tags"].split(";") if tag.strip()),
        content=folder / record["image"].strip(),
        mask=folder / mask if mask else None,
    )
