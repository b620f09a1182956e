"""A CSV or TSV table with a column that names the photo, and a column per class or one with the classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from plda.data.source import UNKNOWN
from plda.data.table import read_table
from plda.errors import InputError
from plda.readers.fields import shown
from plda.readers.found import SPLIT_NAMES, Files, Found

IMAGE = (
    "image", "file_name", "filename", "file", "path", "photo", "image_path", "img", "image_name", "image_id",
)  # fmt: skip
LABELS = ("tags", "tag", "labels", "label", "classes", "class", "categories", "category")
SPLIT = ("split", "set", "subset")
OTHER = ("id", "index", "")
YES, NO = ("1", "1.0", "true", "yes", "y", "t", "x"), ("0", "0.0", "false", "no", "n", "f", "", "-")

Records: TypeAlias = Sequence[tuple[int, dict[str, str]]]  # line in the file, fields by column


def recognises(source: Path) -> bool:
    """Return whether a file is a table, or the only table of a folder has a column for the photo."""
    table = _table(source)
    if table is None or source.is_file():
        return table is not None
    try:
        return bool(_records(table))
    except InputError:
        return False


def read(source: Path, images: Path | None) -> Found:
    """Read all rows. A row without a class means that the photo shows none of them; `?` means unknown."""
    table = _table(source)
    if table is None:
        raise InputError(f"{source}: must be a CSV or TSV file or a folder with exactly one")
    column, records = _records(table)
    found = Found(Files(images or table.parent))
    columns = [*records[0][1]] if records else []
    split_column = next((name for name in SPLIT if name in columns), "")
    labels = next((name for name in LABELS if name in columns), "")
    if not labels:
        rest = [name for name in columns if name not in (column, split_column, *OTHER)]
        found.classes = [name for name in rest if _is_class(name, records)]
        found.notes += [f"column {name!r} is no class" for name in rest if name not in found.classes]
    for line, record in records:
        where = f"{table}: line {line}"
        split = split_of(record.get(split_column, ""), f"{where}: column {split_column}")
        if labels:
            tags = tags_in(record[labels], f"{where}: column {labels}")
        else:
            tags = [name for name in found.classes if _yes(record[name], f"{where}: column {name}")]
        if path := found.locate(record[column]):
            found.add(path, split, tags)
    found.notes.append("rows without a class mean that the photo shows none of them")
    return found


def split_of(text: str, where: str) -> str:
    """Return the split that a field names, "" if it is empty.

    Raises:
        InputError: it is another word; begins with `where`, the file and the field.
    """
    if text and text.lower() not in SPLIT_NAMES:
        raise InputError(f"{where} must be train, val or test, got {shown(text)}")
    return SPLIT_NAMES.get(text.lower(), "")


def tags_in(value: object, where: str) -> list[str]:
    """Return the classes in a field: a list, or text with `;` or else commas between them; None is unknown.

    Raises:
        InputError: it is anything else; begins with `where`, the file and the field.
    """
    if value is None:
        return [*UNKNOWN]
    if isinstance(value, str):
        value = value.split(";" if ";" in value else ",")
    elif not isinstance(value, list):
        value = [value]
    for part in value:
        if isinstance(part, bool) or not isinstance(part, str | int):
            raise InputError(f"{where} must be a class or a list of classes, got {shown(part)}")
    return [text for text in (str(part).strip() for part in value) if text]


def _table(source: Path) -> Path | None:
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    tables = [file for file in files if file.suffix.lower() in (".csv", ".tsv") and file.is_file()]
    return tables[0] if len(tables) == 1 else None


def _records(table: Path) -> tuple[str, Records]:
    """Return the column that names the photo, and the rows."""
    faults = []
    for column in IMAGE:
        try:
            return column, read_table(table, [column])
        except InputError as error:
            faults.append(error)
    if any("header: must name" not in str(fault) for fault in faults):
        raise faults[0]
    raise InputError(f"{table}: header: must have a column for the photo, one of {', '.join(IMAGE)}")


def _is_class(name: str, records: Records) -> bool:
    """Return whether a column has a field that means yes or, apart from empty ones, only fields of no."""
    values = {record[name].lower() for _, record in records} - {""}
    return bool(values & {*YES}) or values <= {*NO}


def _yes(text: str, where: str) -> bool:
    if text.lower() not in YES + NO:
        raise InputError(f"{where} must be 0 or 1, true or false, yes or no, x or empty, got {shown(text)}")
    return text.lower() in YES
