"""Rejects inputs with times in the future, for which Snakemake deletes a job's outputs (`clock skew`)."""

import time
from collections.abc import Iterable
from pathlib import Path

from plda.errors import InputError

TOLERANCE = 2  # seconds between the clocks of two machines; a job takes longer


def refuse_future(paths: Iterable[str]) -> None:
    """Check the modification times of the files that Snakemake compares.

    Raises:
        InputError: a file's time is in the future.
    """
    latest = time.time() + TOLERANCE
    for path in map(Path, paths):
        if path.exists() and path.stat().st_mtime > latest:
            date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(path.stat().st_mtime))
            raise InputError(
                f"{path}: its time must not be in the future, got {date}; give all such files the present "
                "time: `find . -newermt now -exec touch {} +`"
            )
