"""Hugging Face's ImageFolder: metadata.csv or metadata.jsonl with `file_name` and a column of classes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plda.data.table import read_table
from plda.data.text import read_text
from plda.errors import InputError
from plda.readers.fields import checked, get
from plda.readers.found import Files, Found, split_in
from plda.readers.table import LABELS, split_of, tags_in

NAMES = ("metadata.csv", "metadata.jsonl")


def recognises(source: Path) -> bool:
    """Return whether a file is such a table, or a folder or its sub-folders have one."""
    tables = _tables(source)
    try:
        return any(table.suffix == ".jsonl" or bool(read_table(table, ["file_name"])) for table in tables)
    except InputError:  # another table of that name
        return False


def read(source: Path, images: Path | None) -> Found:
    """Read the tables of all folders. An empty list or text means no class; null is unknown."""
    tables = _tables(source)
    if not tables:
        raise InputError(f"{source}: must be a {' or '.join(NAMES)}, or a folder with one")
    home = source if source.is_dir() else source.parent
    found = Found(Files(images or home))
    for table in tables:
        folder = table.parent.relative_to(home)
        for where, record in _records(table):
            name = get(record, "file_name", str, where)
            labels = next((name for name in LABELS if name in record), None)
            if labels is None:
                raise InputError(f"{where}: must have a field with classes, one of {', '.join(LABELS)}")
            tags = tags_in(record[labels], f"{where}: {labels}")
            own = split_of(str(record.get("split") or ""), f"{where}: split")
            if path := found.locate((folder / name).as_posix()):
                found.add(path, own or split_in(folder) or split_in(Path(name).parent), tags)
    found.notes.append("photos whose field is empty show none of the classes")
    return found


def _tables(source: Path) -> list[Path]:
    if source.is_dir():
        return sorted(path for name in NAMES for path in source.rglob(name))
    return [source] if source.name in NAMES else []


def _records(table: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each row with its place for messages."""
    if table.suffix == ".csv":
        for line, record in read_table(table, ["file_name"]):
            yield f"{table}: line {line}", {**record}
        return
    for line, text in enumerate(read_text(table).split("\n"), 1):
        where = f"{table}: line {line}"
        if text.strip():
            try:
                yield where, checked(json.loads(text), dict, where)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{where}: must be JSON: {error}") from error
