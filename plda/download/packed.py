"""Foreign tar and zip archives: list of entries, and access to files by name without extraction.

The content of an archive is not trusted. An entry has a fault if its name could lead out of a folder, or if
it is a link, a device or anything but a plain file or folder. An entry with a fault must not be read.
"""

import errno
import gzip
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, cast

from plda.data.archive import Archive
from plda.errors import InputError

DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    UnicodeError,
)
TAR_BLOCK = 512
MOST_AFTER_THE_END = 1 << 24  # bytes; tar pads its last record, usually with 10 kB at most


@dataclass(frozen=True)
class Member:
    """An entry of an archive.

    Attributes:
        name: name in the archive.
        kind: "file", "folder", or a description of another kind.
        size: size of the content, in bytes.
        offset: position of the content in the archive; None if the content is compressed.
        open: opens the content; in a compressed tar only until the next member is read.
    """

    name: str
    kind: str
    size: int
    offset: int | None
    open: Callable[[], IO[bytes]]

    @property
    def path(self) -> PurePosixPath:
        """Return the name without `.` parts; it may still have a fault."""
        return PurePosixPath(self.name)

    @property
    def fault(self) -> str:
        """Return why the entry must not be read or extracted, "" if it may."""
        if name_fault(self.name):
            return name_fault(self.name)
        return "" if self.kind in ("file", "folder") else f"is {self.kind}"


def name_fault(name: str) -> str:
    """Return why `name` is not a path inside a folder, "" if it is one on any operating system."""
    path = PurePosixPath(name)
    if path.is_absolute() or re.match("[A-Za-z]:", name):
        return "is an absolute path"
    if ".." in path.parts:
        return "leads out of the folder"
    if "\\" in name or "\0" in name or not name:
        return "is not a plain path"
    return ""


@contextmanager
def reading(archive: Path) -> Iterator[list[Member] | Iterator[Member]]:
    """Yield the members: of a zip or tar as a list; of a tar.gz one after the other, during decompression.

    Raises:
        InputError: the archive is missing, damaged, truncated, or not an archive (also within the context).
    """
    start = _start(archive)
    with _unharmed(archive):
        if start in (b"PK\3\4", b"PK\5\6"):
            with zipfile.ZipFile(archive) as opened:
                yield [_zip_member(opened, info) for info in opened.infolist()]
        elif start[:2] == b"\x1f\x8b":
            with gzip.open(archive) as unpacked:
                yield _tar_members(cast(IO[bytes], unpacked), compressed=True)
        else:
            with archive.open("rb") as plain:
                yield list(_tar_members(plain, compressed=False))


@contextmanager
def _unharmed(archive: Path) -> Iterator[None]:
    """Turn the libraries' errors on a damaged archive into an InputError."""
    try:
        yield
    except DAMAGED as error:
        raise InputError(f"{archive}: is damaged, truncated, or not a tar or zip: {error}") from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise InputError(f"{archive}: is damaged: it refers to a position before its start") from error


def _start(archive: Path) -> bytes:
    try:
        with archive.open("rb") as stream:
            return stream.read(4)
    except OSError as error:
        raise InputError(f"{archive}: cannot be read: {error.strerror}") from error


def _zip_member(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    kind = _kind_of(info.external_attr >> 16) if info.external_attr >> 16 else "file"
    if info.filename.endswith("/") and kind in ("file", "folder"):
        kind = "folder"
    if info.flag_bits & 1:
        kind = "encrypted"
    return Member(info.orig_filename, kind, info.file_size, None, partial(opened.open, info))


def _tar_members(stream: IO[bytes], *, compressed: bool) -> Iterator[Member]:
    """Yield all members; then check that the archive has a proper end, so that it is complete."""
    watched = _Watched(stream)
    tar = tarfile.TarFile(fileobj=cast(IO[bytes], watched))
    for info in tar:
        offset = None if compressed else info.offset_data
        yield Member(info.name, _tar_kind(info), info.size, offset, partial(_open_tar, tar, info))
    if watched.last != bytes(TAR_BLOCK):  # for tarfile, anything but a header is the end
        raise EOFError("its end is missing, or an entry is damaged")
    if compressed and len(stream.read(MOST_AFTER_THE_END)) == MOST_AFTER_THE_END:
        raise EOFError("it has data after its end")  # else gzip has now verified its checksum


class _Watched:
    """A stream that remembers the last data read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.last = stream, b""
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        self.last = self._stream.read(size)
        return self.last


def _open_tar(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(info)
    assert stream is not None, info.name
    return stream


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.issym():
        return "a symbolic link"
    if info.islnk():
        return "a hard link"
    if info.issparse():
        return "a sparse file"
    if info.isdir():
        return "folder"
    return "file" if info.isreg() else "a device or another special file"


def _kind_of(mode: int) -> str:
    kinds = {0: "file", stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "a symbolic link"}
    return kinds.get(stat.S_IFMT(mode), "a device or another special file")


class Packed:
    """Files by name in a zip, an uncompressed tar or a folder, read in place.

    It can be passed to worker processes: each opens the files itself. The table of a tar is made once, here,
    in seconds for a tar of a few GB, and passed on.
    """

    def __init__(self, path: Path) -> None:
        """List the files at `path`.

        Raises:
            InputError: the file is missing, damaged, or a tar.gz, which has no access by name.
        """
        self.path = path
        self._zip: Archive | None = None
        self._places: dict[str, tuple[int, int]] = {}  # in a tar: offset and size
        self._names: dict[str, str] = {}  # by normalised name: the name in the folder or zip
        if path.is_dir():
            files = sorted(f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file())
            self._names = dict(zip(files, files, strict=True))
            return
        with reading(path) as members:
            if not isinstance(members, list):
                raise InputError(
                    f"{path}: is a tar.gz, which has no access by name; extract it, or decompress it to a tar"
                )
            for member in members:
                if member.kind == "file" and not member.fault:
                    self._add(member)

    def names(self) -> list[str]:
        """Return the names of all files without a fault, in the archive's order."""
        return list(self._places or self._names)

    def read(self, name: str) -> bytes:
        """Return the content of file `name`; KeyError if it does not exist.

        Raises:
            InputError: the archive is damaged.
        """
        if name in self._places:
            offset, size = self._places[name]
            with self.path.open("rb") as stream:
                stream.seek(offset)
                return stream.read(size)
        inside = self._names[name]
        if self._zip is None:
            return (self.path / inside).read_bytes()
        with _unharmed(self.path):
            return self._zip.read(inside)

    def _add(self, member: Member) -> None:
        if member.offset is not None:
            self._places[str(member.path)] = (member.offset, member.size)
        else:
            self._zip = self._zip or Archive(self.path)
            self._names[str(member.path)] = member.name
