"""Removes the locks of a killed Snakemake, if none of its processes can still be running.

Snakemake writes into `.snakemake/locks` which files it works on, and refuses to start while such notes exist.
After `kill -9` they remain. The operating system's lock on `.snakemake/plda.lock` does not: every Snakemake
and every job holds it in shared mode until its process ends. If a process gets it in exclusive mode, no other
process on this host works in this folder, so all notes made on this host are stale.

Nothing is removed if the file system does not support such locks, or if a Snakemake on another host, or one
with cluster jobs, has used the folder: then Snakemake's own message explains what to do (`--unlock`).
"""

import fcntl
import os
import socket
from pathlib import Path

NOTES = Path(".snakemake/locks")  # Snakemake deletes this folder when a run ends
LOCK = Path(".snakemake/plda.lock")
# prefix of each job's shell command: Snakemake's own prefix, which this replaces, and the lock in shared
# mode, for jobs that outlive their Snakemake; macOS has no flock(1)
PREFIX = f"set -euo pipefail; [ -w {LOCK} ] && exec 9<> {LOCK} && flock --shared 9 2> /dev/null || true; "


def hold(cluster: bool) -> None:
    """Remove stale notes, then hold the lock in shared mode until this process ends.

    Args:
        cluster: whether jobs run on other hosts, where this lock may not be visible.
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
    except OSError:  # locks are not supported here, or the folder is another user's
        return


def _alone(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
