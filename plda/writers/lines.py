"""JSON files with one record per line, which are written and read record by record."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def write_records(path: Path, before: str, records: Iterable[Any], after: str) -> None:
    """Write a JSON file: the line `before`, each record in a line, the line `after`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as stream:
        stream.write(before)
        for number, record in enumerate(records):
            stream.write((",\n" if number else "\n") + json.dumps(record, ensure_ascii=False))
        stream.write(f"\n{after}\n")


def read_records(path: Path) -> Iterator[Any]:
    """Yield the records of a file that `write_records` wrote."""
    with path.open(encoding="utf-8") as stream:
        next(stream)
        line = next(stream)
        for following in stream:
            yield json.loads(line.rstrip("\n").removesuffix(","))
            line = following
