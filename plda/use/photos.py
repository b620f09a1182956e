"""Search for the photos that a user names, and the names of their outputs."""

import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from plda.data.images import ENDINGS
from plda.errors import InputError
from plda.files import LONGEST_NAME


@dataclass(frozen=True)
class Photo:
    """A photo to label.

    Attributes:
        path: path of the photo.
        name: name of its outputs, without extension; folders in it are separated by "/".
        fault: why the photo cannot be read, "" if no fault is known. A folder that cannot be listed is a
            photo with a fault.
        tags: names of the classes that it may show; None: any class.
    """

    path: Path
    name: str
    fault: str = ""
    tags: tuple[str, ...] | None = None


def find_photos(given: Sequence[str], out: Path) -> list[Photo]:
    """Return all photos that a user names, each once.

    A named file is taken with any extension. In a folder and its subfolders, files with an extension in
    ENDINGS that are not hidden are taken. Names are relative to the deepest common folder. They have no
    extension, unless two photos would then have the same name: then all names keep it. A name that is too
    long is cut.

    Args:
        given: files, folders and patterns like "photos/**/*.jpg"; see `_fitting`.
        out: the output folder; files in it are not photos.

    Raises:
        InputError: an argument does not exist or has no photo; names each one.
    """
    found: dict[Path, Path] = {}  # each file, and the folder that it was found through
    unlisted: dict[Path, str] = {}  # each folder that cannot be listed, and why
    faults = []
    for text in given:
        matches = [text] if os.path.lexists(text) else _fitting(text)
        if not matches:
            faults.append(f"{text}: no such file or folder, and no file matches it as a pattern")
        for path in map(_absolute, matches):
            is_folder = os.path.isdir(path)  # noqa: PTH112  (a Path raises where access is denied)
            files = list(_photos_in(path, _absolute(out), unlisted)) if is_folder else [path]
            if path == _absolute(out):
                faults.append(f"{text}: holds the photos, so it cannot be the output folder")
            elif not files and len(matches) == 1:
                faults.append(f"{text}: no photo in this folder; photos end in {' '.join(ENDINGS)}")
            for file in files:
                found.setdefault(file, path if is_folder else path.parent)
    if not found and not faults:
        faults.append(f"{' '.join(given)}: no photo found")
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
    """Return a name with room for an extension of five characters; a digest keeps a cut name unique."""
    content = os.fsencode(name.name)
    if len(content) + 5 <= LONGEST_NAME:
        return name
    start = content[:200].decode(errors="ignore")
    return name.with_name(f"{start}-{hashlib.sha256(content).hexdigest()[:12]}")


def _fitting(pattern: str) -> list[str]:
    """Return the paths that match a pattern.

    Brackets are literal in names of existing folders, and everywhere if nothing else matches: `[` and `]` are
    common in names and rare in patterns.
    """
    parts = Path(pattern).parts
    exist = [n for n in range(len(parts)) if os.path.lexists(Path(*parts[: n + 1]))]
    there = len(exist)  # number of leading parts that exist
    folders = [glob.escape(part) for part in parts[:there]]
    end = "/" if pattern.endswith("/") else ""
    for each in (f"{Path(*folders, *parts[there:])}{end}", pattern, pattern.replace("[", "[[]")):
        found = glob.glob(each, recursive=True)  # noqa: PTH207  (a Path's takes no absolute pattern)
        if found:
            return sorted(found)
    return []


def _photos_in(folder: Path, out: Path, unlisted: dict[Path, str]) -> Iterator[Path]:
    """Yield the photos in a folder, and folders that cannot be listed, which are noted in `unlisted`."""
    errors: list[OSError] = []
    passed = set()  # else a link to a parent folder would be an endless loop
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
    return Path(os.path.abspath(path))  # noqa: PTH100  (resolve() would follow links; their names are needed)
