"""What is written of a source: its classes, and its readable photos with their names and splits."""

import hashlib
import random
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from tqdm import tqdm

from plda.data.classes import MOST, is_name
from plda.data.images import CHECKED, read_file, read_image
from plda.data.index import image_key
from plda.data.source import UNKNOWN
from plda.data.text import plain
from plda.errors import InputError
from plda.readers.found import Found, Photo, joined
from plda.readers.outlines import nothing

NO_OBJECT = ("background", "bg", "none")  # names that mean: no class
NO_LABEL = ("void", "ignore", "ignored", "unlabeled", "unlabelled", "unknown", "?")  # not known


def known_classes(found: Found) -> list[str]:
    """Return the names of all classes: those that the source declares, then other tags."""
    tagged = sorted({tag for photo in found.photos.values() for tag in photo.tags})
    return [name for name in dict.fromkeys([*map(plain, found.classes), *tagged]) if name]


def is_void(name: str) -> bool:
    """Return whether a name means that nobody knows the class."""
    return name.strip("_ ").lower() in NO_LABEL


def choose_classes(found: Found, only: Sequence[str] | None, without: Sequence[str]) -> list[str]:
    """Return the classes to keep, in order; names that mean background or void are none.

    Args:
        found: the source.
        only: `--classes`; None for all.
        without: `--exclude`.

    Raises:
        InputError: a class is not in the source, or has a name that tags.csv or classes.txt cannot hold.
    """
    known, where = known_classes(found), found.files.folder
    for flag, names in (("--classes", only or []), ("--exclude", without)):
        for name in names:
            if name not in known:
                raise InputError(f"{flag}: must be classes of {where}, {', '.join(known)}, got {name!r}")
    kept = [
        name
        for name in only or known
        if name not in without and not is_void(name) and name.strip("_ ").lower() not in NO_OBJECT
    ]
    for name in kept:
        if not is_name(name) or _clean(name) != name:
            raise InputError(
                f"{where}: a class must have a name without `;`, control characters and a colour at the end, "
                f"got {name!r}; rename it, or drop it by --exclude"
            )
    if len(kept) >= MOST:
        raise InputError(f"{where}: classes must be at most {MOST - 1}, got {len(kept)}; see --classes")
    return kept


def choose_photos(found: Found, classes: Sequence[str]) -> list[Photo]:
    """Return the photos that can be read, each content once, with the tags of all its copies.

    Their names are those to write. What is left out is noted in `found`.
    """
    kept: dict[bytes, Photo] = {}
    for photo in tqdm(found.photos.values(), unit="photo", disable=not sys.stderr.isatty()):
        try:
            content = read_file(photo.path)
            read_image(content, CHECKED)
        except InputError as error:
            found.left_out["not readable as an image"].append(f"{photo.name} ({error})")
            continue
        photo = replace(photo, tags=_tags(photo.tags, classes))
        digest = hashlib.sha256(content).digest()
        if digest in kept:
            found.left_out["a copy of another photo, which has the tags of both"].append(photo.name)
            photo = joined(kept[digest], photo)
        kept[digest] = photo
    photos = list(kept.values())
    if all(photo.mask for photo in photos if photo.tags not in ((), UNKNOWN)):  # then the others are empty
        photos = [photo if photo.tags else replace(photo, mask=photo.mask or nothing) for photo in photos]
    names = _free_names([photo.name for photo in photos])
    return [replace(photo, name=name) for photo, name in zip(photos, names, strict=True)]


def choose_splits(photos: Sequence[Photo], found: Found, share: float, seed: int) -> list[Photo]:
    """Return the photos with splits: those of the source, or val photos drawn from its train photos."""
    given = {photo.split for photo in photos} - {""}
    if given and (outside := [photo.name for photo in photos if not photo.split]):
        found.left_out["in no split"] += outside
        photos = [photo for photo in photos if photo.split]
    photos = [replace(photo, split=photo.split or "train") for photo in photos]
    if "val" in given:
        found.notes.append("splits are those of the source")
        return photos
    found.notes.append(f"val photos were drawn, seed {seed}")
    drawn = draw_val({photo.name: photo.tags for photo in photos if photo.split == "train"}, share, seed)
    return [replace(photo, split="val") if photo.name in drawn else photo for photo in photos]


def draw_val(tags: Mapping[str, Sequence[str]], share: float, seed: int) -> set[str]:
    """Return the photos to keep aside: of each class about `share`, from rare to frequent classes.

    A photo counts for all its classes, so later classes draw what the earlier ones left to draw. Photos
    without a class are drawn like a class; those with unknown tags are not.

    Args:
        tags: the tags of each photo.
        share: share of val photos.
        seed: seed of the order in which photos are drawn.
    """
    names = sorted(name for name in tags if tags[name] != UNKNOWN)
    random.Random(seed).shuffle(names)
    members: dict[str, list[str]] = defaultdict(list)
    for name in names:
        for tag in tags[name] or ("",):
            members[tag].append(name)
    val: set[str] = set()
    seen: set[str] = set()
    for tag in sorted(members, key=lambda tag: (len(members[tag]), tag)):
        missing = round(share * len(members[tag])) - len(val.intersection(members[tag]))
        val.update([name for name in members[tag] if name not in seen][: max(0, missing)])
        seen.update(members[tag])
    return val or set(names[:1])


def _tags(tags: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    """Return the tags that are classes; UNKNOWN if there is none, but a tag that means unlabelled."""
    kept = tuple(tag for tag in tags if tag in classes)
    return kept or (UNKNOWN if any(map(is_void, tags)) else ())


def _free_names(paths: Sequence[str]) -> list[str]:
    """Return a name for each photo: its file name, with its folders if several have that, else a number."""
    wanted = [PurePosixPath(_clean(path)) for path in paths]
    count, taken, names = Counter(_key(path.name) for path in wanted), set(), []
    for path in wanted:
        path = name = path if count[_key(path.name)] > 1 else PurePosixPath(path.name)
        number = 1
        while _key(str(name)) in taken:
            number += 1
            name = path.with_stem(f"{path.stem}_{number}")
        taken.add(_key(str(name)))
        names.append(str(name))
    return names


def _key(name: str) -> str:
    return image_key(name).casefold()


def _clean(name: str) -> str:
    """Return a name in composed Unicode, without backslashes and characters that text files cannot hold."""
    kept = (
        "_" if letter == "\\" or unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in name
    )
    return unicodedata.normalize("NFC", "".join(kept))
