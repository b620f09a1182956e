"""Unpacking a tar or zip from elsewhere into a folder: all that is wanted of it, or nothing.

Only content is taken, as new plain files: no owners, modes, times or links. The folder is built under a
temporary name and renamed at the end; `.extracted.json` in it says what it was made of.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from plda.data.packed import Member, reading
from plda.data.progress import Progress, in_words, say
from plda.errors import InputError
from plda.files import delete_remains, locked, read_note, remains_of, replacing, write_json

CHUNK = 1 << 20
DISK_BLOCK = 4096  # an entry, however small, takes one, so many small ones cannot fill a disk either
NOTE = ".extracted.json"


def extract(archive: Path, folder: Path, *, limit: int, only: Sequence[str] = ()) -> None:
    """Unpack `archive`, a zip, tar or tar.gz, into `folder`; where that is done already, do nothing.

    Args:
        archive: never changed.
        folder: written, whole or not at all. One made of another archive or selection is replaced, one
            that was not made here is not touched.
        limit: of bytes on the disk; an archive that would take more is refused.
        only: paths within the archive: these files, and what is below these folders. () for everything.
            Other entries are not looked at.

    Raises:
        InputError: the archive is missing, damaged or cut off; a wanted entry is a link, a device, or leads
            out of the folder; it would take more than `limit` or than is free; nothing is there under a
            name of `only`; or `folder` cannot be written.
    """
    note = _note(archive, only)
    if _is_made_of(folder, note):
        return
    with locked(folder):
        if _is_made_of(folder, note):  # another process did it
            return
        if folder.exists() and not (folder / NOTE).is_file():
            raise InputError(f"{folder}: was not unpacked here, so it is not replaced; move it away")
        delete_remains(remains_of(folder))
        say(f"{archive}: unpacking into {folder}")
        with replacing(folder) as temporary, reading(archive) as members:
            temporary.mkdir()
            chosen = _bounded(_chosen(members, archive, only), archive, folder, limit)
            total = None
            if isinstance(members, list):  # every fault is found before a byte is written
                chosen = iter(found := list(chosen))
                total = sum(member.size for member in found)
            with Progress(f"unpacking {archive.name}", total) as progress:
                for member in chosen:
                    _write(member, temporary, archive, progress)
            write_json(temporary / NOTE, note)


def _note(archive: Path, only: Sequence[str]) -> dict[str, object]:
    try:
        state = archive.stat()
    except OSError as error:
        raise InputError(f"{archive}: cannot be read: {error.strerror}") from error
    return {"archive": archive.name, "size": state.st_size, "mtime_ns": state.st_mtime_ns, "only": list(only)}


def _is_made_of(folder: Path, note: dict[str, object]) -> bool:
    return read_note(folder / NOTE) == note


def _chosen(members: Iterable[Member], archive: Path, only: Sequence[str]) -> Iterator[Member]:
    """Those that are wanted, each without fault."""
    missing = set(only)
    for member in members:
        above = {path for path in only if member.path.is_relative_to(path)}
        missing -= above
        if above or not only:
            if member.fault:
                raise InputError(f"{archive}: refused: {member.name!r} {member.fault}")
            yield member
    if missing:
        raise InputError(f"{archive}: holds nothing named {', '.join(sorted(missing))}")


def _bounded(members: Iterable[Member], archive: Path, folder: Path, limit: int) -> Iterator[Member]:
    """The same, as long as they fit."""
    free = shutil.disk_usage(folder.parent).free
    need = 0
    for member in members:
        need += -(-max(member.size, 1) // DISK_BLOCK) * DISK_BLOCK
        if need > limit:
            raise InputError(f"{archive}: refused: holds more than {in_words(limit)}")
        if need > free:
            raise InputError(f"{folder}: needs more than the {in_words(free)} that are free on its disk")
        yield member


def _write(member: Member, folder: Path, archive: Path, progress: Progress) -> None:
    path = folder / member.path
    try:
        if member.kind == "folder":
            path.mkdir(parents=True, exist_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as out, member.open() as content:
            for chunk in iter(partial(content.read, CHUNK), b""):
                out.write(chunk)
                progress.add(len(chunk))
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{archive}: refused: {member.name!r} stands there twice") from error
    if path.stat().st_size != member.size:
        raise EOFError(f"{member.name!r} is cut off")
