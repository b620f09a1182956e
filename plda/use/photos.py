"""The photos that a user names, and what the files made of each are called."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from plda.errors import InputError

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
    """

    path: Path
    name: str


def find_photos(given: Sequence[str], out: Path) -> list[Photo]:
    """Every photo of what a user named, once.

    A file is taken whatever it is called; of a folder, and of those in it, the files with an ending of photos
    that are not hidden. Names begin below the folder that all have in common; they lose their ending, unless
    two photos differ in nothing else: then all keep theirs.

    Args:
        given: files, folders and patterns like "photos/**/*.jpg".
        out: the folder that is written to; nothing in it is taken for a photo.

    Raises:
        InputError: names each that does not exist, or that has no photo.
    """
    found: dict[Path, Path] = {}  # each file, and the folder that it was found through
    faults = []
    for text in given:
        matches = [text] if os.path.lexists(text) else _fitting(text)
        if not matches:
            faults.append(f"{text}: no such file or folder, and no file fits it as a pattern")
        for path in map(_absolute, matches):
            files = list(_photos_in(path, _absolute(out))) if path.is_dir() else [path]
            if path == _absolute(out):
                faults.append(f"{text}: holds the photos, so it cannot be the folder that is written to")
            elif not files and len(matches) == 1:
                faults.append(f"{text}: no photo is in this folder; endings of photos: {' '.join(ENDINGS)}")
            for file in files:
                found.setdefault(file, path if path.is_dir() else path.parent)
    if not found and not faults:
        faults.append(f"{' '.join(given)}: no photo is there")
    if faults:
        raise InputError("\n".join(faults))
    top = os.path.commonpath(found.values())
    names = [file.relative_to(top) for file in found]
    bare = [name.with_suffix("") for name in names]
    if len(set(bare)) == len(bare):
        names = bare
    return [Photo(file, name.as_posix()) for file, name in zip(found, names, strict=True)]


def _fitting(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  (a Path's takes no absolute pattern)


def _photos_in(folder: Path, out: Path) -> Iterator[Path]:
    passed = set()  # else a link to a folder above would have no end
    for parent, folders, files in os.walk(folder, followlinks=True):
        here = Path(parent)
        if here == out or here.resolve() in passed:
            folders.clear()
            continue
        passed.add(here.resolve())
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for name in sorted(files):
            if name[0] != "." and Path(name).suffix.lower() in ENDINGS:
                yield here / name


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100  (resolve() would follow links, whose names are meant)
