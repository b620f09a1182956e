"""The fingerprint of the user's photos, which Snakemake compares in the same way as params.

If the photos were inputs, Snakemake would compare the folder's modification time, which a new Thumbs.db
changes and a replaced photo does not.
"""

import hashlib
from functools import cache
from pathlib import Path

from plda.sources.folder import CLASSES, TAGS, named_files


@cache
def fingerprint(folder: Path) -> str:
    """Return a checksum of the tables' contents and of the sizes and times of the files that they name.

    Missing or unreadable files are skipped; the stage that reads the folder reports them.
    """
    known = [_content(folder / CLASSES), _content(folder / TAGS), *map(_state, named_files(folder))]
    return hashlib.sha256(repr(known).encode()).hexdigest()


def _content(table: Path) -> str | None:
    try:
        return hashlib.sha256(table.read_bytes()).hexdigest()
    except OSError:
        return None


def _state(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except (OSError, ValueError):  # a name with a zero byte raises ValueError
        return None
    return status.st_size, status.st_mtime_ns
