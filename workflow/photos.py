"""What Snakemake knows of the user's own photos: one fingerprint, which it compares as it compares params.

As inputs they would be judged by the folder's time, which a Thumbs.db changes and a replaced photo does not.
"""

import hashlib
from functools import cache
from pathlib import Path

from plda.data.folder import CLASSES, TAGS, named_files


@cache
def fingerprint(folder: Path) -> str:
    """Return a checksum of the tables' contents and of the sizes and times of the files that they name.

    What is missing or unreadable is left out; the stage that reads the folder explains the fault.
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
    except (OSError, ValueError):  # a name with a zero byte is a ValueError
        return None
    return status.st_size, status.st_mtime_ns
