"""Command tags: writes a folder for `source: folder` from photos and labels of other programs.

First everything is read and checked, then the folder is written under a temporary name and renamed.
"""

import argparse
import csv
import hashlib
import io
import os
import random
import shlex
import shutil
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from plda.data.classes import BACKGROUND, MOST, is_name
from plda.data.images import CHECKED, VOID, encode_mask, image_size, read_file, read_image
from plda.data.index import image_key
from plda.data.source import SPLITS, UNKNOWN
from plda.data.text import plain
from plda.errors import InputError
from plda.files import delete_remains, need_space, remains_of, replacing
from plda.readers.found import Found, Photo, Size
from plda.readers.kinds import KINDS, kind_of
from plda.readers.outlines import nothing
from plda.sources.folder import CLASSES, TAGS

NO_OBJECT = ("background", "bg", "none")  # names that mean: no class
NO_LABEL = ("void", "ignore", "ignored", "unlabeled", "unlabelled", "unknown", "?")  # not known
SHOWN = 3  # names of what was left out


@dataclass(frozen=True)
class _Kept:
    """A photo to write: `name` is its path in the written folder."""

    photo: Photo
    name: str
    size: Size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add = parser.add_argument
    add("source", type=Path, metavar="SOURCE", help="folder or file with labels, see docs/own-photos.md")
    add("--out", type=Path, required=True, metavar="FOLDER", help="output folder; must be new or empty")
    add("--kind", choices=KINDS, help="kind of SOURCE; found automatically")
    add("--images", type=Path, metavar="FOLDER", help="folder of the photos; that of the labels")
    add("--val", type=float, default=0.15, metavar="SHARE", help="of val photos if SOURCE has none; 0.15")
    add("--seed", type=int, default=0, metavar="N", help="seed of the choice of val photos; 0")
    add("--classes", type=_names, metavar="A,B", help="classes to keep, in this order")
    add("--exclude", type=_names, default=[], metavar="A,B", help="classes to drop")
    add("--link", action="store_true", help="link photos instead of copying them")
    add("--no-masks", dest="masks", action="store_false", help="write no masks")


def tags(
    source: Path,
    out: Path,
    kind: str | None,
    images: Path | None,
    val: float,
    seed: int,
    classes: list[str] | None,
    exclude: list[str],
    link: bool,
    masks: bool,
) -> None:
    """Write photos and labels of other programs as a folder with tags.csv and classes.txt.

    plda tags annotations.xml --images photos --out mine

    SOURCE is one folder per class, a CSV table, or labels of COCO, VOC, YOLO, Label Studio, CVAT or Hugging
    Face. Outlines become masks, which are used for scores only; boxes do not.
    """
    _check_place(source, out)
    if not 0 < val < 1:
        raise InputError(f"--val: must be between 0 and 1, got {val}")
    kind = kind or kind_of(source)
    found = KINDS[kind].read(source, images)
    names = _selected(found, source, classes, exclude)
    kept = _kept(found, {*names})
    names = [name for name in names if any(name in it.photo.tags for it in kept)]
    if not names:
        what = f"photos must show at least one class, got none in {len(kept)} photos"
        raise InputError("\n".join([f"{source}: {what}", *_reasons(found)]))
    _check_names(names, source)
    kept = _with_empty_masks(_split(kept, found, val, seed, source))
    if not masks:
        kept = [replace(it, photo=replace(it.photo, mask=None)) for it in kept]
    masked = _write(out, kept, names, found, link)
    print(f"kind: {kind}")
    print(_table(kept, names, masked))
    for line in [*found.notes, *_reasons(found)]:
        print(line)
    setting = shlex.quote(f"index_data.folder={out}")
    print(f"{out}: written; next: plda preset photos --set {setting}")


def _names(text: str) -> list[str]:
    """Return the names in a list with commas; a name with a comma is in quotation marks."""
    return [plain(name) for name in next(csv.reader([text], skipinitialspace=True), []) if plain(name)]


def _check_place(source: Path, out: Path) -> None:
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise InputError(f"--out: must be a new or an empty folder, got {out}")
    if source.is_dir() and source.resolve() in (out.resolve(), *out.resolve().parents):
        raise InputError(f"--out: must be outside {source}, got {out}")


def _bare(name: str) -> str:
    return name.strip("_ ").lower()


def _known(found: Found) -> list[str]:
    """Return the names of all classes: those that the source declares, then other tags."""
    tagged = sorted({tag for photo in found.photos for tag in photo.tags})
    return [name for name in dict.fromkeys([*map(plain, found.classes), *tagged]) if name]


def _check_names(names: Sequence[str], source: Path) -> None:
    wrong = [name for name in names if not is_name(name)]
    if wrong:
        raise InputError(
            f"{source}: class must be a name without `;` that does not end in a colour, got {wrong[0]!r}; "
            "rename it, or drop it by --exclude"
        )
    if len(names) >= MOST:
        raise InputError(f"{source}: classes must be at most {MOST - 1}, got {len(names)}; see --classes")


def _selected(found: Found, source: Path, classes: Sequence[str] | None, exclude: Sequence[str]) -> list[str]:
    """Return the classes to keep, in order; complain about an unknown one."""
    known = _known(found)
    for flag, names in (("--classes", classes or []), ("--exclude", exclude)):
        for name in names:
            if name not in known:
                raise InputError(f"{flag}: must be classes of {source}, {', '.join(known)}, got {name!r}")
    return [
        name
        for name in classes or known
        if name not in exclude and _bare(name) not in (*NO_OBJECT, *NO_LABEL)
    ]


def _kept(found: Found, classes: set[str]) -> list[_Kept]:
    """Return the photos that can be read, each content once, with the tags of all its copies."""
    kept: dict[bytes, tuple[Photo, Size]] = {}
    for given in tqdm(found.photos, unit="photo", disable=not sys.stderr.isatty()):
        photo = replace(given, tags=_tags(given.tags, classes))
        try:
            content = read_file(photo.path)
            read_image(content, CHECKED)
            size = image_size(content)
        except InputError as error:
            found.left_out["not readable as an image"].append(f"{photo.name} ({error})")
            continue
        digest = hashlib.sha256(content).digest()
        first, _ = kept.get(digest, (photo, size))
        if first is not photo:
            found.left_out["a copy of another photo, which has the tags of both"].append(photo.name)
        kept[digest] = _joined(first, photo), size
    names = _free_names([photo.name for photo, _ in kept.values()])
    return [_Kept(photo, name, size) for (photo, size), name in zip(kept.values(), names, strict=True)]


def _with_empty_masks(kept: list[_Kept]) -> list[_Kept]:
    """Give photos without objects a mask, too, if all others have one."""
    masks = [it.photo.mask for it in kept if it.photo.tags not in ((), UNKNOWN)]
    if not all(masks):
        return kept
    return [
        it if it.photo.tags else replace(it, photo=replace(it.photo, mask=it.photo.mask or nothing))
        for it in kept
    ]


def _tags(tags: Sequence[str], classes: set[str]) -> tuple[str, ...]:
    """Return the tags that are classes; UNKNOWN if there is none, but a tag that means unlabelled."""
    kept = tuple(tag for tag in tags if tag in classes)
    return kept or (UNKNOWN if any(_bare(tag) in NO_LABEL for tag in tags) else ())


def _joined(first: Photo, other: Photo) -> Photo:
    """Return a photo with the tags of its copy; its mask is kept only if both have the same tags."""
    tags = tuple(dict.fromkeys(tag for tag in first.tags + other.tags if tag not in UNKNOWN))
    same = {*first.tags} == {*other.tags}
    return first if same else replace(first, tags=tags, mask=None)


def _free_names(paths: Sequence[str]) -> list[str]:
    """Return a name for each photo: its file name, with its folders if several have that, else a number."""
    clean = (unicodedata.normalize("NFC", "".join(map(_printable, path))) for path in paths)
    wanted = [PurePosixPath(path) for path in clean]
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


def _printable(character: str) -> str:
    return "_" if character == "\\" or unicodedata.category(character) in ("Cc", "Cs") else character


def _split(kept: list[_Kept], found: Found, share: float, seed: int, source: Path) -> list[_Kept]:
    """Return the photos with their splits: those of the source, or val photos drawn from its train photos."""
    given = {it.photo.split for it in kept} - {""}
    if given:
        outside = [it.name for it in kept if not it.photo.split]
        kept = [it for it in kept if it.photo.split]
        if outside:
            found.left_out["in no split"] += outside
    train = [it for it in kept if it.photo.split in ("", "train")]
    if "val" in given:
        drawn = set()
        found.notes.append("splits are those of the source")
    else:
        drawn = draw_val({it.name: it.photo.tags for it in train}, share, seed)
        found.notes.append(f"val photos were drawn, seed {seed}")
    splits = {it.name: "val" if it.name in drawn else it.photo.split or "train" for it in kept}
    taught = [it for it in train if it.name not in drawn and {*it.photo.tags} - {*UNKNOWN}]
    if not taught or "val" not in splits.values():
        counts = ", ".join(f"{number} {name}" for name, number in Counter(splits.values()).items())
        what = f"photos must be at least one for train, with a class, and one for val, got {counts}"
        raise InputError("\n".join([f"{source}: {what}", *_reasons(found)]))
    return [replace(it, photo=replace(it.photo, split=splits[it.name])) for it in kept]


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


def _write(out: Path, kept: Sequence[_Kept], names: Sequence[str], found: Found, link: bool) -> set[str]:
    """Write the folder; return the photos that have a mask."""
    ids = {name: class_id for class_id, name in enumerate(names, 1)}
    ids |= {name: VOID for name in _known(found) if _bare(name) in NO_LABEL}
    out = out.resolve()
    delete_remains(remains_of(out))
    need_space(out, 0 if link else sum(it.photo.path.stat().st_size for it in kept))
    masked = set()
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("image", "split", "tags", "mask"))
    with replacing(out) as folder:
        for it in tqdm(kept, unit="photo", disable=not sys.stderr.isatty()):
            _place(it.photo.path, folder / "images" / it.name, link)
            mask = _mask(it, ids, found)
            name = f"masks/{image_key(it.name)}.png" if mask else ""
            if mask:
                masked.add(it.name)
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(mask)
            rows.writerow((f"images/{it.name}", it.photo.split, ";".join(it.photo.tags), name))
        (folder / TAGS).write_text(table.getvalue(), encoding="utf-8")
        (folder / CLASSES).write_text("\n".join([BACKGROUND, *names, ""]), encoding="utf-8")
    return masked


def _place(photo: Path, place: Path, link: bool) -> None:
    """Copy a photo, or make a hard link, or a symbolic link where a hard one is not possible."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if not link:
        shutil.copyfile(photo, place)
        return
    try:
        os.link(photo.resolve(), place)
    except OSError:
        place.symlink_to(photo.resolve())


def _mask(it: _Kept, ids: Mapping[str, int], found: Found) -> bytes | None:
    try:
        return encode_mask(it.photo.mask(ids, it.size)) if it.photo.mask else None
    except InputError as error:
        found.left_out["a mask that does not fit, its photo is kept"].append(f"{it.name} ({error})")
        return None


def _table(kept: Sequence[_Kept], names: Sequence[str], masked: set[str]) -> str:
    """Return the number of photos of each class and split as a table."""
    rows = [("photos", kept)]
    rows += [(f"  {name}", [it for it in kept if name in it.photo.tags]) for name in names]
    rows += [("  without any class", [it for it in kept if not it.photo.tags])]
    rows += [("  unknown tags (?)", [it for it in kept if it.photo.tags == UNKNOWN])]
    rows += [("with a mask", [it for it in kept if it.name in masked])]
    width = max(len(title) for title, _ in rows)
    lines = [" " * width + "".join(f"{split:>8}" for split in SPLITS)]
    for title, photos in rows:
        counts = Counter(it.photo.split for it in photos)
        lines.append(f"{title:{width}}" + "".join(f"{counts[split]:8}" for split in SPLITS))
    return "\n".join(lines)


def _reasons(found: Found) -> list[str]:
    """Return a line for each reason why something was left out, with the first names."""
    return [
        f"left out, {reason}: {len(names)}: {', '.join(names[:SHOWN])}" + ", ..." * (len(names) > SHOWN)
        for reason, names in found.left_out.items()
    ]
