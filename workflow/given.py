"""The fingerprint of a folder of the user, of photos or of a review: Snakemake compares it as it does params.

If the folder were an input, Snakemake would compare its modification time, which a new Thumbs.db changes and
a replaced photo does not.
"""

import hashlib
from functools import cache
from pathlib import Path

from plda.data.decisions import MASKS, TABLE
from plda.sources.folder import CLASSES, TAGS, named_files


@cache
def fingerprint(folder: Path) -> str:
    """Return a checksum of the tables' contents, and of the sizes and times of photos or accepted masks.

    Missing or unreadable files are skipped; the stage that reads the folder reports them.
    """
    files = named_files(folder)
    if (folder / TABLE).exists():
        files += sorted((folder / MASKS).rglob("*.png"))
    known = [*(_content(folder / table) for table in (CLASSES, TAGS, TABLE)), *map(_state, files)]
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
