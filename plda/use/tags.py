"""Command tags: writes a folder for `source: folder` from photos and labels of other programs.

First everything is read and checked, then the folder is written under a temporary name and renamed.
"""

import argparse
import csv
import io
import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from plda.data.classes import BACKGROUND
from plda.data.images import VOID, encode_mask, image_size, read_file
from plda.data.index import image_key
from plda.data.source import SPLITS, UNKNOWN
from plda.data.text import plain
from plda.errors import InputError
from plda.files import delete_remains, need_space, remains_of, replacing
from plda.readers.choose import choose_classes, choose_photos, choose_splits, is_void, known_classes
from plda.readers.found import Found, Photo
from plda.readers.kinds import KINDS, kind_of
from plda.sources.folder import CLASSES, TAGS

SHOWN = 3  # names of what was left out


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
    if not 0 < val < 1:
        raise InputError(f"--val: must be between 0 and 1, got {val}")
    _check_place(source, out)
    kind = kind or kind_of(source)
    found = KINDS[kind].read(source, images)
    if unnamed := found.unnamed():
        found.left_out["no label names it"] += unnamed
    names = choose_classes(found, classes, exclude)
    photos = choose_splits(choose_photos(found, names), found, val, seed)
    _check_photos(photos, found, source)
    names = [name for name in names if any(name in photo.tags for photo in photos)]
    if not masks:
        photos = [replace(photo, mask=None) for photo in photos]
    masked = _write(out.resolve(), photos, names, found, link)
    print(f"kind: {kind}")
    for line in [*_table(photos, names, masked), *found.notes, *_left_out(found)]:
        print(line)
    setting = shlex.quote(f"index_data.folder={out}")
    print(f"{out}: written; next: plda preset photos --set {setting}")


def _names(text: str) -> list[str]:
    """Return the names in a list with commas; a name with a comma is in quotation marks."""
    return [plain(name) for name in next(csv.reader([text], skipinitialspace=True), []) if plain(name)]


def _check_place(source: Path, out: Path) -> None:
    empty = out.is_dir() and not out.is_symlink() and not any(out.iterdir())
    if not empty and os.path.lexists(out):
        raise InputError(f"--out: must be a new or an empty folder, got {out}")
    if source.is_dir() and source.resolve() in (out.resolve(), *out.resolve().parents):
        raise InputError(f"--out: must be outside {source}, got {out}")


def _check_photos(photos: Sequence[Photo], found: Found, source: Path) -> None:
    """Check what training needs: a train photo with a class, and a val photo."""
    taught = [photo for photo in photos if photo.split == "train" and photo.tags not in ((), UNKNOWN)]
    if not taught or all(photo.split != "val" for photo in photos):
        counts = Counter(photo.split for photo in photos)
        got = f"{counts['train']} train ({len(taught)} with a class), {counts['val']} val"
        what = f"photos must be at least one with a class in train and one in val, got {got}"
        raise InputError("\n".join([f"{source}: {what}", *_left_out(found)]))


def _write(out: Path, photos: Sequence[Photo], names: Sequence[str], found: Found, link: bool) -> set[str]:
    """Write the folder; return the names of the photos that have a mask."""
    ids = {name: class_id for class_id, name in enumerate(names, 1)}
    ids |= {name: VOID for name in known_classes(found) if is_void(name)}
    delete_remains(remains_of(out))
    need_space(out, 0 if link else sum(photo.path.stat().st_size for photo in photos))
    masked, table = set(), io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("image", "split", "tags", "mask"))
    with replacing(out) as folder:
        for photo in tqdm(photos, unit="photo", disable=not sys.stderr.isatty()):
            _place(photo.path, folder / "images" / photo.name, link)
            mask, name = _mask(photo, ids, found), ""
            if mask:
                masked.add(photo.name)
                name = f"masks/{image_key(photo.name)}.png"
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(mask)
            rows.writerow((f"images/{photo.name}", photo.split, ";".join(photo.tags), name))
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


def _mask(photo: Photo, ids: Mapping[str, int], found: Found) -> bytes | None:
    if photo.mask is None:
        return None
    try:
        return encode_mask(photo.mask(ids, image_size(read_file(photo.path))))
    except InputError as error:
        found.left_out["a mask that does not fit, its photo is kept"].append(f"{photo.name} ({error})")
        return None


def _table(photos: Sequence[Photo], names: Sequence[str], masked: set[str]) -> list[str]:
    """Return the lines of a table of the number of photos by class and split."""
    rows = [("photos", photos)]
    rows += [(f"  {name}", [photo for photo in photos if name in photo.tags]) for name in names]
    rows += [("  without any class", [photo for photo in photos if not photo.tags])]
    rows += [("  unknown tags (?)", [photo for photo in photos if photo.tags == UNKNOWN])]
    rows += [("with a mask", [photo for photo in photos if photo.name in masked])]
    width = max(len(title) for title, _ in rows)
    lines = [" " * width + "".join(f"{split:>8}" for split in SPLITS)]
    for title, members in rows:
        counts = Counter(photo.split for photo in members)
        lines.append(f"{title:{width}}" + "".join(f"{counts[split]:8}" for split in SPLITS))
    return lines


def _left_out(found: Found) -> list[str]:
    """Return a line for each reason why something was left out, with the first names."""
    return [
        f"left out, {reason}: {len(names)}: {', '.join(names[:SHOWN])}" + ", ..." * (len(names) > SHOWN)
        for reason, names in found.left_out.items()
    ]
