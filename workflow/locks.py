"""Removes the locks that a killed Snakemake left behind, if nothing of it can still be alive.

Snakemake notes in `.snakemake/locks` which files it works on, and refuses to start where such notes are.
After `kill -9` they stay. The system's own lock on `.snakemake/plda.lock` does not: every Snakemake and every
job holds a share of it until its process ends. Who can have it alone knows that no process on this host works
here, so that all notes made on this host are stale.

Nothing is removed if the file system has no such locks, or if a Snakemake on another host, or one that gave
jobs to a cluster, was here: then Snakemake's own message says what to do (`--unlock`).
"""

import fcntl
import os
import socket
from pathlib import Path

NOTES = Path(".snakemake/locks")  # Snakemake deletes this folder when a run ends
LOCK = Path(".snakemake/plda.lock")
# what a job's shell does first: Snakemake's own prefix, which this replaces, and a share of the lock, so that
# jobs that outlive their Snakemake count as well; macOS has no flock(1)
PREFIX = f"set -euo pipefail; [ -w {LOCK} ] && exec 9<> {LOCK} && flock --shared 9 2> /dev/null || true; "


def hold(cluster: bool) -> None:
    """Hold a share of the lock until this process ends, and remove stale notes before.

    Args:
        cluster: jobs run elsewhere, where this lock may not be seen.
    """
    mine = NOTES / ("cluster.user" if cluster else f"{socket.gethostname()}.user")
    try:
        NOTES.mkdir(parents=True, exist_ok=True)
        lock = os.open(LOCK, os.O_RDWR | os.O_CREAT, 0o666)  # never closed
        if _alone(lock) and not cluster and list(NOTES.glob("*.user")) == [mine]:
            for note in NOTES.glob("*.lock"):
                note.unlink()
        mine.touch()
        fcntl.flock(lock, fcntl.LOCK_SH)
    except OSError:  # no such locks here, or another user's folder
        return


def _alone(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
