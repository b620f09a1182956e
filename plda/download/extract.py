"""Extraction of a tar or zip archive into a folder: all wanted entries, or nothing.

Only content is extracted, as new plain files: no owners, modes, times or links. The folder is built under a
temporary name and renamed at the end; `.extracted.json` in it records the archive and the selection.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from plda.download.packed import Member, reading
from plda.download.progress import Progress, in_words, say
from plda.errors import InputError
from plda.files import delete_remains, locked, read_note, remains_of, replacing, write_json

CHUNK = 1 << 20
DISK_BLOCK = 4096  # bytes, the least that an entry counts, so that many small entries cannot fill the disk
NOTE = ".extracted.json"


def extract(archive: Path, folder: Path, *, limit: int, only: Sequence[str] = ()) -> None:
    """Extract `archive`, a zip, tar or tar.gz, into `folder`; do nothing if that is already done.

    Args:
        archive: the archive, which is not changed.
        folder: the output folder, written completely or not at all. A folder extracted from another archive
            or selection is replaced; a folder that was not made by this function is never changed.
        limit: largest size on the disk in bytes; a larger archive is rejected.
        only: paths within the archive: these files, and everything below these folders; () for everything.
            Other entries are not checked.

    Raises:
        InputError: the archive is missing, damaged or truncated; a selected entry is a link, a device, or
            leads out of the folder; the content is larger than `limit` or than the free space; a name of
            `only` is not in the archive; or `folder` cannot be written.
    """
    note = _note(archive, only)
    if _is_made_of(folder, note):
        return
    with locked(folder):
        if _is_made_of(folder, note):  # another process did it
            return
        if folder.exists() and not (folder / NOTE).is_file():
            raise InputError(f"{folder}: was not made by this command, so it is not replaced; move it away")
        delete_remains(remains_of(folder))
        say(f"{archive}: unpacking into {folder}")
        with replacing(folder) as temporary, reading(archive) as members:
            temporary.mkdir()
            chosen = _bounded(_chosen(members, archive, only), archive, folder, limit)
            total = None
            if isinstance(members, list):  # find every fault before a byte is written
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
    """Yield the selected members; raise InputError if one has a fault."""
    missing = set(only)
    for member in members:
        above = {path for path in only if member.path.is_relative_to(path)}
        missing -= above
        if above or not only:
            if member.fault:
                raise InputError(f"{archive}: refused: {member.name!r} {member.fault}")
            yield member
    if missing:
        raise InputError(f"{archive}: does not contain {', '.join(sorted(missing))}")


def _bounded(members: Iterable[Member], archive: Path, folder: Path, limit: int) -> Iterator[Member]:
    """Yield `members` as long as they fit into `limit` and the free space."""
    free = shutil.disk_usage(folder.parent).free
    need = 0
    for member in members:
        need += -(-max(member.size, 1) // DISK_BLOCK) * DISK_BLOCK
        if need > limit:
            raise InputError(f"{archive}: refused: holds more than {in_words(limit)}")
        if need > free:
            raise InputError(f"{folder}: needs more than the {in_words(free)} that are free on the disk")
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
        raise InputError(f"{archive}: refused: duplicate entry {member.name!r}") from error
    if path.stat().st_size != member.size:
        raise EOFError(f"{member.name!r} is truncated")
