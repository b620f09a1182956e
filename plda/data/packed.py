"""Tar and zip archives from elsewhere: what is in them, and files by name without extracting.

Nothing an archive says is trusted. A name that could lead out of a folder, a link, a device or whatever
else is no plain file has a fault, and whoever reads an entry with a fault is refused.
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
MOST_AFTER_THE_END = 1 << 24  # bytes; tar fills its last record up, with 10 kB at most as a rule


@dataclass(frozen=True)
class Member:
    """An entry of an archive.

    Attributes:
        name: as the archive gives it.
        kind: "file", "folder", or in words what else it is.
        size: of its content, in bytes.
        offset: where its content stands in the archive as it is; None where it stands there compressed.
        open: gives its content; in a compressed tar only until the next member is asked for.
    """

    name: str
    kind: str
    size: int
    offset: int | None
    open: Callable[[], IO[bytes]]

    @property
    def path(self) -> PurePosixPath:
        """The name without detours through `.`; it may still have a fault."""
        return PurePosixPath(self.name)

    @property
    def fault(self) -> str:
        """Why it must not be read or extracted, in words; "" if it may."""
        if name_fault(self.name):
            return name_fault(self.name)
        return "" if self.kind in ("file", "folder") else f"is {self.kind}"


def name_fault(name: str) -> str:
    """Why `name` is no path inside a folder, in words; "" if it is one, on any operating system."""
    path = PurePosixPath(name)
    if path.is_absolute() or re.match("[A-Za-z]:", name):
        return "is an absolute path"
    if ".." in path.parts:
        return "leads out of the folder"
    if "\\" in name or "\0" in name or not name:
        return "is no plain path"
    return ""


@contextmanager
def reading(archive: Path) -> Iterator[list[Member] | Iterator[Member]]:
    """The members of a zip or tar as a list; those of a tar.gz one after the other, as it is unpacked.

    Raises:
        InputError: within, too: it is missing, damaged, cut off, or no archive.
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
    """Turn what the libraries raise on a damaged archive into an InputError, within."""
    try:
        yield
    except DAMAGED as error:
        raise InputError(f"{archive}: is damaged, cut off, or no tar or zip: {error}") from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise InputError(f"{archive}: is damaged: it names a place before its start") from error


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
    """All members; then whether the archive ends there as a tar must, or is cut off or damaged."""
    watched = _Watched(stream)
    tar = tarfile.TarFile(fileobj=cast(IO[bytes], watched))
    for info in tar:
        offset = None if compressed else info.offset_data
        yield Member(info.name, _tar_kind(info), info.size, offset, partial(_open_tar, tar, info))
    if watched.last != bytes(TAR_BLOCK):  # tarfile takes anything that is no header for the end
        raise EOFError("its end is missing, or an entry in between is damaged")
    if compressed and len(stream.read(MOST_AFTER_THE_END)) == MOST_AFTER_THE_END:
        raise EOFError("it goes on after its end")  # else gzip has compared its checksum now


class _Watched:
    """A stream that knows what was read of it last."""

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
    return "file" if info.isreg() else "a device or the like"


def _kind_of(mode: int) -> str:
    kinds = {0: "file", stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "a symbolic link"}
    return kinds.get(stat.S_IFMT(mode), "a device or the like")


class Packed:
    """Files by name in a zip, a tar (not compressed) or a folder, read where they stand.

    Safe to hand to worker processes: nothing stays open but what each opens for itself. The table of a
    tar is made once, here, in seconds for a tar of a few GB, and handed on.
    """

    def __init__(self, path: Path) -> None:
        """Look at what is there.

        Raises:
            InputError: no such file, damaged, or a tar.gz, which has no access by name.
        """
        self.path = path
        self._zip: Archive | None = None
        self._places: dict[str, tuple[int, int]] = {}  # in a tar: offset and size
        self._names: dict[str, str] = {}  # as asked for: as the folder or zip calls it
        if path.is_dir():
            files = sorted(f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file())
            self._names = dict(zip(files, files, strict=True))
            return
        with reading(path) as members:
            if not isinstance(members, list):
                raise InputError(
                    f"{path}: is a tar.gz, which cannot be read by name; extract it, or unzip it"
                )
            for member in members:
                if member.kind == "file" and not member.fault:
                    self._add(member)

    def names(self) -> list[str]:
        """Of all files, in the archive's order; what has a fault is not among them."""
        return list(self._places or self._names)

    def read(self, name: str) -> bytes:
        """The content of file `name`; KeyError if there is none.

        Raises:
            InputError: it is damaged.
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
