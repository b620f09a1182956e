"""CSV tables from spreadsheets of any locale, each row with its line number in the file.

The delimiter is the comma, semicolon or tab that splits the header into the needed columns. Blank rows,
spaces around fields, capitals in the header and empty fields beyond the header are ignored.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from plda.data.text import plain, read_text
from plda.errors import InputError

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}

Record = tuple[int, list[str]]  # line number of its start, fields


def read_table(path: Path, needed: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Read the rows of a CSV file.

    Args:
        path: a UTF-8 file, its first row the header.
        needed: required columns, lower case.

    Returns:
        For each row that is not blank: its line in the file, and its fields by lower-case column.

    Raises:
        InputError: the file cannot be read, a column is missing or duplicate, a quotation mark is not closed,
            or a row has more fields than the header.
    """
    text = read_text(path)
    hint, excel = re.match(r"(?i)(?:sep=(.)\r?\n)?", text), 0  # an extra first line of Excel
    if hint and hint[1]:
        text, excel = text[hint.end() :], 1
    try:
        delimiter, columns = _header(text, needed)
        rows = []
        for line, fields in _records(text, delimiter):
            if any(fields):
                rows.append((line + excel, _named(line + excel, fields, columns)))
        return rows[1:]
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _header(text: str, needed: Sequence[str]) -> tuple[str, list[str]]:
    """Return the delimiter with which the first row names all needed columns, and the column names."""
    for delimiter in DELIMITERS:
        first = next((fields for _, fields in _records(text, delimiter) if any(fields)), [])
        columns = [plain(name).lower() for name in first]
        if set(needed) <= set(columns):
            for name in filter(None, columns):
                if columns.count(name) > 1:
                    raise InputError(f"header: column {name!r} occurs {columns.count(name)} times")
            return delimiter, columns
    seen = text.strip("\ufeff \r\n").splitlines()[:1]
    wanted = ", ".join(needed)
    if not seen:
        raise InputError(f"is empty; its first line must name the columns {wanted}")
    raise InputError(
        f"header: must name the columns {wanted}, separated by {', '.join(DELIMITERS.values())}; "
        f"the first line is {seen[0][:200]!r}"
    )


def _records(text: str, delimiter: str) -> Iterator[Record]:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    while True:
        line = rows.line_num + 1
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"line {line}: cannot be split into fields ({error}); is a quotation mark not closed?"
            ) from error
        yield line, [field.strip() for field in fields]


def _named(line: int, fields: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    beyond = [field for i, field in enumerate(fields) if field and (i >= len(columns) or not columns[i])]
    if beyond:
        raise InputError(
            f"line {line}: has {len(fields)} fields, but the header has {len([c for c in columns if c])}: "
            f"{', '.join(fields)!r}; a field that holds the delimiter must be in quotation marks"
        )
    padded = [*fields, *[""] * (len(columns) - len(fields))]
    return {column: field for column, field in zip(columns, padded, strict=False) if column}
