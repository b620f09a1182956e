"""What a reader returns: the photos of a labelled data set, with tags and masks.

Photos are searched by the names that the labels give them, and only among the files of one folder: no path
in a label file leads out of it.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from plda.data.images import ENDINGS
from plda.data.source import UNKNOWN
from plda.data.text import plain
from plda.errors import InputError

Size: TypeAlias = tuple[int, int]
"""Width, height."""

Mask: TypeAlias = Callable[[Mapping[str, int], Size], NDArray[np.uint8]]
"""Makes a mask, (H, W) class ids, for the ids of all classes and the size of the photo.

Raises an InputError without a file name if the photo has another size than its labels say.
"""

SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Photo:
    """A photo of the source.

    Attributes:
        path: the file.
        name: its path in the folder of the photos, with slashes.
        split: "train", "val" or "test"; "" if the source does not say.
        tags: names of all classes in the photo; UNKNOWN if nobody labelled it.
        mask: makes the true mask; None if an object of the photo has no outline.
    """

    path: Path
    name: str
    split: str
    tags: tuple[str, ...]
    mask: Mask | None = None


class Files:
    """The photos in a folder and its sub-folders, without hidden ones."""

    def __init__(self, folder: Path, names: Iterable[str] | None = None) -> None:
        """List the folder, or take the names of its photos, which are then not searched on the disk.

        Raises:
            InputError: it is not a folder.
        """
        if names is None and not folder.is_dir():
            raise InputError(f"{folder}: must be the folder of the photos")
        self.folder = folder
        self.paths = list(_photos_in(folder)) if names is None else [folder / name for name in names]
        self._named: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            for name in {_key(path.name), _key(path.stem)}:
                self._named[name].append(path)

    def name(self, path: Path) -> str:
        """Return the path of a photo in the folder, with slashes."""
        return path.relative_to(self.folder).as_posix()

    def find(self, name: str) -> list[Path]:
        """Return the photos that fit `name` best: one, none, or several equally well.

        The folders of the shorter one of both paths must be the last folders of the other one. Case, Unicode
        form and kind of slash do not matter; the extension may be missing; `..` is ignored.
        """
        for text in (name, unquote(name)):
            wanted = [_key(part) for part in inner_parts(text)]
            scores = {}
            for path in self._named.get(wanted[-1], []) if wanted else []:
                parts = [_key(part) for part in path.relative_to(self.folder).parts]
                common = min(len(parts), len(wanted))
                if parts[-common:-1] == wanted[-common:-1]:
                    scores[path] = common, len(parts) == common, path.name == inner_parts(text)[-1]
            if scores:
                return [path for path, score in scores.items() if score == max(scores.values())]
        return []


@dataclass
class Found:
    """What a reader found.

    Attributes:
        files: the files among which photos are searched.
        classes: names of the classes that the source declares, in its order; tags may have others.
        photos: the photos, by path.
        left_out: names of what was left out, by reason.
        notes: what was decided for photos without labels, and other choices, each one sentence.
    """

    files: Files
    classes: list[str] = field(default_factory=list)
    photos: dict[Path, Photo] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    notes: list[str] = field(default_factory=list)
    _names: dict[Path, str] = field(default_factory=dict)

    def locate(self, *names: str) -> Path | None:
        """Return the photo with one of `names`, which are tried in turn; if there is none, note that."""
        for name in names:
            fitting = self.files.find(name)
            if len(fitting) == 1 and self._names.setdefault(fitting[0], name) == name:
                return fitting[0]
            if fitting:
                self.left_out["the name fits several files, or a file that another name fits"].append(name)
                return None
        self.left_out["no such file"].append(names[0])
        return None

    def unnamed(self) -> list[str]:
        """Return the files that the labels do not name, and that are not left out for another reason."""
        named = {*self._names, *self.photos}
        left_out = {name for names in self.left_out.values() for name in names}
        others = (self.files.name(path) for path in self.files.paths if path not in named)
        return [name for name in others if name not in left_out]

    def add(self, path: Path, split: str, tags: Iterable[str], mask: Mask | None = None) -> None:
        """Add a photo; each tag counts once. A photo that is added again gets more tags."""
        unique = tuple(dict.fromkeys(plain(tag) for tag in tags))
        photo = Photo(path, self.files.name(path), split, unique, mask)
        self.photos[path] = joined(self.photos.get(path, photo), photo)


def joined(first: Photo, again: Photo) -> Photo:
    """Return a photo with the tags of its copy, too; its mask is kept only if both have the same tags."""
    if {*first.tags} == {*again.tags}:
        return first
    tags = dict.fromkeys(tag for tag in first.tags + again.tags if tag not in UNKNOWN)
    return replace(first, tags=tuple(tags), mask=None)


def split_in(path: Path) -> str:
    """Return the split that the first folder of that kind in a path names, such as `valid/`, or ""."""
    return next((SPLIT_NAMES[part.lower()] for part in path.parts if part.lower() in SPLIT_NAMES), "")


def inner_parts(path: str) -> list[str]:
    """Return the parts of a path from any system, without what could lead out of a folder."""
    return [part for part in PurePosixPath(path.replace("\\", "/")).parts if part not in ("/", "//", "..")]


def _key(name: str) -> str:
    return plain(name).casefold()


def _photos_in(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != "." and name != "__MACOSX")
        for name in sorted(files):
            if name[0] != "." and Path(name).suffix.lower() in ENDINGS:
                yield Path(parent, name)
