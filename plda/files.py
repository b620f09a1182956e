"""Atomic writing: every output is written completely or not at all.

Each file or folder is created under a temporary name in the same folder and renamed when it is complete. So a
killed job, a full disk or a missing permission never leaves an incomplete output that looks finished.
"""

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from plda.errors import InputError

LONGEST_NAME = 255  # bytes, the limit of Linux file systems
ADDED = 20  # bytes that a temporary name adds to the name of the output
REMAINS = re.compile(r"\..*\.(\d+)\.tmp", re.DOTALL)  # temporary names, each with the id of its process

_REASONS = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is exceeded",
    errno.EFBIG: "the file would exceed the size limit",
    errno.EACCES: "no write permission",
    errno.EPERM: "no write permission",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder, not a file",
    errno.ENAMETOOLONG: "a name is too long for the file system",
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` at the end, delete it after a failure.

    The caller creates a file or a folder under the temporary path.

    Raises:
        InputError: `path` cannot be written (no space, no permission, ...).
    """
    temporary = path.with_name(f".{_cut(path.name)}.{os.getpid()}.tmp")
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


def remains_of(path: Path) -> Iterator[Path]:
    """Yield the temporary files of `path` that killed processes left or other processes are writing."""
    start = f".{_cut(path.name)}."
    for found in path.parent.glob(f"{glob.escape(start)}*.tmp"):
        if found.name.removeprefix(start).removesuffix(".tmp").isdigit():
            yield found


def delete_remains(found: Iterable[Path]) -> None:
    """Delete those of `found` that killed processes of this machine left behind."""
    for path in found:
        made = REMAINS.fullmatch(path.name)
        if made and not _alive(int(made[1])):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # the process belongs to another user
        return True
    return True


def _cut(name: str) -> str:
    """Shorten a name so that the temporary name made from it is not too long."""
    return os.fsencode(name)[: LONGEST_NAME - ADDED].decode(errors="ignore")


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


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_note(path: Path) -> dict[str, Any]:
    """Return what `write_json` wrote, or {} if the file is missing or cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def need_space(path: Path, size: int) -> None:
    """Check that the disk of `path` has `size` bytes free.

    Raises:
        InputError: too little space, or the folder of `path` cannot be created.
    """
    with explaining(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
    if free < size:
        raise InputError(f"{path}: needs {size / 1e6:.1f} MB, only {free / 1e6:.1f} MB are free on the disk")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of `path` within the context; wait first if another process holds it.

    Raises:
        InputError: the lock, a hidden file beside `path`, cannot be written.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with explaining(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"{path}: waiting for another process that is writing it", file=sys.stderr, flush=True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Turn the operating system's errors of writing in the folder of `path` into an InputError."""
    try:
        yield
    except OSError as error:
        elsewhere = error.filename and not str(error.filename).startswith(str(path.parent))
        if elsewhere or error.errno not in _REASONS:
            raise
        raise InputError(f"{path}: cannot be written: {_REASONS[error.errno]}") from error
