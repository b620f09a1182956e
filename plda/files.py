"""How every output is written: whole, or not at all.

Each file or folder is built under a temporary name next to its place and renamed when complete, so a killed
job, a full disk or a forbidden folder never leaves something that looks finished.
"""

import errno
import glob
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from plda.errors import InputError

LONGEST_NAME = 255  # bytes, of Linux's file systems
REMAINS = re.compile(r"\..*\.\d+\.tmp")  # what a killed process leaves beside an output

_REASONS = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would exceed the size limit",
    errno.EACCES: "no write permission",
    errno.EPERM: "no write permission",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "a folder has its name",
    errno.ENAMETOOLONG: "a name is too long for the file system",
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` at the end, delete it after a failure.

    The caller creates a file or a folder under the temporary path.

    Raises:
        InputError: the place cannot be written (no space, no permission, ...), naming `path`.
    """
    temporary = path.with_name(_temporary_name(path.name))
    with explaining(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            if temporary.is_dir() and path.is_dir():
                shutil.rmtree(path)
            temporary.replace(path)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary)
            else:
                temporary.unlink(missing_ok=True)


def _temporary_name(name: str) -> str:
    """Return a hidden name that `REMAINS` matches, cut to what file systems take."""
    end = f".{os.getpid()}.tmp"
    start = os.fsencode(name)[: LONGEST_NAME - 1 - len(end)]
    return f".{start.decode(errors='ignore')}{end}"


def delete_remains(path: Path) -> None:
    """Delete what killed processes of this machine left half-written of `path`."""
    for remains in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        number = remains.name[len(path.name) + 2 : -len(".tmp")]
        if number.isdigit() and not _alive(int(number)):
            if remains.is_dir():
                shutil.rmtree(remains)
            else:
                remains.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_note(path: Path) -> dict[str, Any]:
    """What `write_json` wrote; {} where there is nothing, or nothing that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def need_space(path: Path, size: int) -> None:
    """Refuse to start writing `size` bytes at `path` where the disk has less.

    Raises:
        InputError: too little space, or no folder can be made there; names `path`.
    """
    with explaining(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
    if free < size:
        raise InputError(f"{path}: needs {size / 1e6:.1f} MB, only {free / 1e6:.1f} MB are free on its disk")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes that lock `path` waiting, within; first wait for the one that is there.

    Raises:
        InputError: the lock, a hidden file beside `path`, cannot be written.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with explaining(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"{path}: waiting for another process that makes it", file=sys.stderr, flush=True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write below `path`'s folder into an InputError, within."""
    try:
        yield
    except OSError as error:
        elsewhere = error.filename and not str(error.filename).startswith(str(path.parent))
        if elsewhere or error.errno not in _REASONS:
            raise
        raise InputError(f"{path}: cannot be written: {_REASONS[error.errno]}") from error
