"""A zip archive of many small files, with random access by name.

Workflow engines, remotes and cluster file systems handle one file well, and twenty thousand files badly. Any
zip tool opens the archive.
"""

import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from plda.errors import InputError
from plda.files import replacing


def pack(path: Path, entries: Iterable[tuple[str, bytes]]) -> None:
    """Write `entries`, pairs of name and content, to `path`. The same entries give the same bytes."""
    with packing(path) as add:
        for name, content in entries:
            add(name, content)


@contextmanager
def packing(path: Path, *, compressed: bool = False) -> Iterator[Callable[[str, bytes], None]]:
    """Write an archive entry by entry, atomically: yield a function that adds one entry (name, content)."""
    with replacing(path) as temporary, writing(temporary, compressed=compressed) as add:
        yield add


@contextmanager
def writing(path: Path, *, compressed: bool = False) -> Iterator[Callable[[str, bytes], None]]:
    """Write an archive as `packing`, but not atomically, for example within a folder that is not complete."""
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind, compresslevel=1) as archive:
        # a ZipInfo without a time: the same content gives the same bytes
        yield lambda name, content: archive.writestr(zipfile.ZipInfo(name), content, kind, 1)


class Archive:
    """A reader of entries by name. It can be passed to worker processes: each opens the file itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, zipfile.ZipFile] | None = None

    def read(self, name: str) -> bytes:
        """Return the content of entry `name`; KeyError if it does not exist.

        Raises:
            InputError: the archive is damaged.
        """
        with self._undamaged():
            return self._open().read(name)

    def names(self) -> list[str]:
        """Return the names of all entries, in order; raises the same errors as `read`."""
        with self._undamaged():
            return self._open().namelist()

    @contextmanager
    def _undamaged(self) -> Iterator[None]:
        try:
            yield
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise InputError(f"{self.path}: is damaged ({error}); delete it and run again") from error

    def _open(self) -> zipfile.ZipFile:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), zipfile.ZipFile(self.path))
        return self._opened[1]

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_opened": None}
