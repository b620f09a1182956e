"""Many small files in one: an uncompressed zip with random access by name.

One file is what both engines, a remote and a cluster's file system handle well; twenty thousand are not.
Any zip tool opens it.
"""

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

from plda.files import replacing


def pack(path: Path, entries: Iterable[tuple[str, bytes]]) -> None:
    """Write `entries`, pairs of name and content, to `path`: the same entries give the same bytes."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content)


class Archive:
    """Reads entries by name. Safe to hand to worker processes: each opens the file for itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, zipfile.ZipFile] | None = None

    def read(self, name: str) -> bytes:
        """The content of entry `name`; KeyError if there is none."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), zipfile.ZipFile(self.path))
        return self._opened[1].read(name)

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_opened": None}
