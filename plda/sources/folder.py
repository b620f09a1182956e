"""The user's own photos: a folder with `classes.txt` and `tags.csv`.

classes.txt has one class name per line, background first. tags.csv has the columns image, split, tags and,
optionally, mask: paths relative to the folder, tags separated by `;`. Empty tags: the image shows none of the
classes. The tag `?`: the classes are unknown, and the image is not used for training.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path, PurePosixPath

from plda.data.classes import read_class_list
from plda.data.source import UNKNOWN, Row, Source
from plda.data.table import read_table
from plda.data.text import plain
from plda.errors import InputError

CLASSES, TAGS = "classes.txt", "tags.csv"
NEEDED = ("image", "split", "tags")


def read_folder(folder: Path) -> Source:
    """Read the two tables of `folder`; the images are read later, one by one.

    Raises:
        InputError: a table is missing or unreadable, or lacks a column.
    """
    table = folder / TAGS
    if not table.exists():
        raise InputError(
            f"{table}: no such file; write the line `image,split,tags,mask` and one line per photo"
        )
    records = read_table(table, NEEDED)
    classes, colours = read_class_list(folder / CLASSES)
    find = _Finder(folder)
    rows = [_row(find, f"{table}, line {line}", record, classes) for line, record in records]
    files = [row.content for row in rows if isinstance(row.content, Path)]
    return Source(classes, rows, str(table), sum(map(_size, files)), colours)


def named_files(folder: Path) -> list[Path]:
    """Return the images and masks that tags.csv names; they may not exist. Unreadable tables give []."""
    try:
        records = read_table(folder / TAGS, NEEDED)
    except InputError:
        return []
    find = _Finder(folder)
    names = [record.get(column, "") for _, record in records for column in ("image", "mask")]
    return [find(name)[1] for name in names if name]


def read_tags_of_files(table: Path, classes: Sequence[str]) -> dict[Path, tuple[str, ...]]:
    """Return the tags of the files in a `tags.csv` by path; files whose tags are unknown are left out.

    Args:
        table: a table with the columns image (a path relative to the table's folder) and tags.
        classes: names that tags may have, background first.

    Raises:
        InputError: the table cannot be read, lists a file twice, or has a tag that is no class.
    """
    found: dict[Path, tuple[str, ...]] = {}
    seen: dict[Path, int] = {}
    find = _Finder(table.parent)
    for line, record in read_table(table, ("image", "tags")):
        _, path = find(record["image"])
        if path in seen:
            raise InputError(f"{table}: line {line}: image: duplicate {path}, first in line {seen[path]}")
        seen[path] = line
        try:
            tags = read_known_tags(record["tags"], classes)
        except InputError as error:
            raise InputError(f"{table}: line {line}: {error}") from error
        if tags is not None:
            found[path] = tags
    return found


def read_known_tags(text: str, classes: Sequence[str]) -> tuple[str, ...] | None:
    """Return the tags of one field, which must be classes of a network; None if they are unknown.

    Raises:
        InputError: a tag is no class.
    """
    tags = read_tags(text, classes)
    if tags == UNKNOWN:
        return None
    for tag in tags:
        if tag not in classes[1:]:
            known = ", ".join(classes[1:])
            raise InputError(f"tags: must be classes of the network ({known}), got {tag[:100]!r}")
    return tags


def read_tags(text: str, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the tags of one field.

    Tags are separated by `;`. Commas or bars also separate them if all parts are classes and the whole is
    not, as in tables whose delimiter is `;`.
    """
    tags: list[str] = []
    for tag in filter(None, map(plain, text.split(";"))):
        parts = [part for part in map(plain, tag.replace("|", ",").split(",")) if part]
        tags += parts if tag not in classes and set(parts) <= set(classes) else [tag]
    return tuple(tags)


def _row(find: "_Finder", origin: str, record: dict[str, str], classes: Sequence[str]) -> Row:
    image, content = find(record["image"])
    mask = record.get("mask", "")
    return Row(
        origin=origin,
        image=image,
        split=plain(record["split"]).lower(),
        tags=read_tags(record["tags"], classes),
        content=content,
        mask=find(mask)[1] if mask else None,
    )


class _Finder:
    """A search for files by the names that tables give them.

    A table may spell a name in composed Unicode and the disk in decomposed (macOS), or the reverse; it may
    have other white space, see `plain`; and a table from Windows separates folders by backslashes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listing = cache(_listing)

    def __call__(self, name: str) -> tuple[str, Path]:
        """Return the name in composed Unicode with slashes, and the file's path, whether it exists or not."""
        if "\\" in name and not _size(self._folder / name):
            name = name.replace("\\", "/")
        path = PurePosixPath(name)
        found = self._folder
        for part in path.parts:
            exact = found / part
            alike = self._listing(found).get(plain(part), [])
            found = alike[0] if len(alike) == 1 and exact not in alike else exact
        return unicodedata.normalize("NFC", str(path)) if name else "", found


def _size(path: Path) -> int:
    """Return the size of a file in bytes; 0 if it does not exist."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


def _listing(folder: Path) -> dict[str, list[Path]]:
    """Return the paths in a folder, by their plain name."""
    files: dict[str, list[Path]] = {}
    try:
        for path in folder.iterdir():
            files.setdefault(plain(path.name), []).append(path)
    except OSError:
        pass
    return files
