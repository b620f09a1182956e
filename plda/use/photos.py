"""The photos that a user names, and what the files made of each are called."""

import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from plda.errors import InputError
from plda.files import LONGEST_NAME

# of the photos in a folder; phones' HEIC among them, which Pillow cannot read: to be told, not passed over
ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif",
    ".avif", ".heic", ".heif",
)  # fmt: skip


@dataclass(frozen=True)
class Photo:
    """A photo to be labelled.

    Attributes:
        path: where it is.
        name: what is made of it is called so, an ending added; folders in it are divided by "/".
        fault: why it is known that it cannot be read, "" if nothing is known; a folder that cannot be listed
            is such a photo.
    """

    path: Path
    name: str
    fault: str = ""


def find_photos(given: Sequence[str], out: Path) -> list[Photo]:
    """Every photo of what a user named, once.

    A file is taken whatever it is called; of a folder, and of those in it, the files with an ending of photos
    that are not hidden. Names begin below the folder that all have in common; they lose their ending, unless
    two photos differ in nothing else: then all keep theirs. A name that leaves no room for an ending is cut.

    Args:
        given: files, folders and patterns like "photos/**/*.jpg"; see `_fitting`.
        out: the folder that is written to; nothing in it is taken for a photo.

    Raises:
        InputError: names each that does not exist, or that has no photo.
    """
    found: dict[Path, Path] = {}  # each file, and the folder that it was found through
    unlisted: dict[Path, str] = {}  # each folder that cannot be listed, and why
    faults = []
    for text in given:
        matches = [text] if os.path.lexists(text) else _fitting(text)
        if not matches:
            faults.append(f"{text}: no such file or folder, and no file fits it as a pattern")
        for path in map(_absolute, matches):
            is_folder = os.path.isdir(path)  # noqa: PTH112  (a Path raises where access is denied)
            files = list(_photos_in(path, _absolute(out), unlisted)) if is_folder else [path]
            if path == _absolute(out):
                faults.append(f"{text}: holds the photos, so it cannot be the folder that is written to")
            elif not files and len(matches) == 1:
                faults.append(f"{text}: no photo is in this folder; endings of photos: {' '.join(ENDINGS)}")
            for file in files:
                found.setdefault(file, path if is_folder else path.parent)
    if not found and not faults:
        faults.append(f"{' '.join(given)}: no photo is there")
    if faults:
        raise InputError("\n".join(faults))
    top = os.path.commonpath(found.values())
    names = [file.relative_to(top) for file in found]
    bare = [name.with_suffix("") for name in names]
    if len(set(bare)) == len(bare):
        names = bare
    return [
        Photo(file, _with_room(name).as_posix(), unlisted.get(file, ""))
        for file, name in zip(found, names, strict=True)
    ]


def _with_room(name: Path) -> Path:
    """Return a name to which an ending of five letters can be added; a digest keeps it unique."""
    content = os.fsencode(name.name)
    if len(content) + 5 <= LONGEST_NAME:
        return name
    start = content[:200].decode(errors="ignore")
    return name.with_name(f"{start}-{hashlib.sha256(content).hexdigest()[:12]}")


def _fitting(pattern: str) -> list[str]:
    """Return what a pattern fits.

    Brackets are letters in folders that are called so, and everywhere if nothing fits otherwise: `[` and `]`
    are common in names, and rare in patterns.
    """
    parts = Path(pattern).parts
    exist = [n for n in range(len(parts)) if os.path.lexists(Path(*parts[: n + 1]))]
    there = len(exist)  # so many parts are the names of folders
    folders = [glob.escape(part) for part in parts[:there]]
    end = "/" if pattern.endswith("/") else ""
    for each in (f"{Path(*folders, *parts[there:])}{end}", pattern, pattern.replace("[", "[[]")):
        found = glob.glob(each, recursive=True)  # noqa: PTH207  (a Path's takes no absolute pattern)
        if found:
            return sorted(found)
    return []


def _photos_in(folder: Path, out: Path, unlisted: dict[Path, str]) -> Iterator[Path]:
    """Yield the photos in a folder; a folder that cannot be listed is yielded, and noted in `unlisted`."""
    errors: list[OSError] = []
    passed = set()  # else a link to a folder above would have no end
    for parent, folders, files in os.walk(folder, onerror=errors.append, followlinks=True):
        here = Path(parent)
        if here == out or here.resolve() in passed:
            folders.clear()
            continue
        passed.add(here.resolve())
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for name in sorted(files):
            if name[0] != "." and Path(name).suffix.lower() in ENDINGS:
                yield here / name
    for error in errors:
        unlisted[Path(error.filename)] = f"cannot be listed: {error.strerror}"
        yield Path(error.filename)


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100  (resolve() would follow links, whose names are meant)
