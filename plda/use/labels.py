"""The command labels: masks as a data set for another program."""

import argparse
import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from plda.data.classes import read_classes
from plda.data.images import ENDINGS, image_size, read_file
from plda.data.index import image_key
from plda.data.text import read_text
from plda.errors import InputError
from plda.writers.pieces import Picture
from plda.writers.write import MOST_FAULTS, Format, Written, write_labels

# where files are found if they are not named, relative to the masks
CLASSES = (
    "classes.txt",
    "../classes.txt",
    "../../index_data/data_set/classes.txt",
)
SCORES = ("../estimates.csv", "../summary.csv")
GUESSED = ".jpg"  # extension of a photo that is not given
MIN_AREA = 0.001  # share of the image
TOLERANCE = 1.0  # pixels


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the flags of the command: the arguments of `labels`."""
    command.add_argument(
        "masks", type=Path, metavar="MASKS", help="folder of masks (PNG), or what `plda predict` wrote"
    )
    command.add_argument("--format", required=True, choices=get_args(Format), help="the program to write for")
    command.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="output folder, new or empty"
    )
    command.add_argument(
        "--classes",
        type=Path,
        metavar="FILE",
        help="classes.txt; default: the one with the masks, or of their run",
    )
    command.add_argument(
        "--photos",
        type=Path,
        metavar="FOLDER",
        help="the photos, named as the masks except for the extension; yolo, voc and datumaro get copies. "
        f"Default: none; their names are assumed to end in {GUESSED}",
    )
    command.add_argument(
        "--min-area",
        type=_number,
        default=MIN_AREA,
        metavar="AREA",
        help="leave out smaller pieces: a number of pixels, or below 1 a share of the image "
        "(default: %(default)s)",
    )
    command.add_argument(
        "--tolerance",
        type=_number,
        default=TOLERANCE,
        metavar="PIXELS",
        help="distance by which a polygon may differ from the outline (default: %(default)s); it is reduced "
        "where the polygon's IoU with the object would be below 0.98",
    )
    command.add_argument(
        "--rle",
        action="store_true",
        help="write objects as run lengths, exactly, instead of polygons (coco, cvat, datumaro)",
    )
    command.add_argument(
        "--scores",
        type=Path,
        metavar="FILE",
        help="estimates.csv or summary.csv, whose expected IoU becomes the objects' score; default: the one "
        "beside the masks",
    )


def labels(
    masks: Path,
    *,
    format: Format,
    out: Path,
    classes: Path | None,
    photos: Path | None,
    min_area: float,
    tolerance: float,
    rle: bool,
    scores: Path | None,
) -> None:
    """Write masks as a data set that other programs open: COCO, YOLO, VOC, Label Studio, CVAT or Datumaro.

    plda labels labelled --format coco --photos photos --out coco

    Each connected piece of a class becomes an object; undecided pixels (255) belong to none. A mask made of a
    shrunk photo is enlarged to the photo's size. Before OUT appears, it is read back and every object is
    compared with its mask: the IoU must be at least 0.98.
    """
    folder = masks / "masks" if (masks / "masks").is_dir() else masks
    classes = classes or _beside(folder, CLASSES)
    if classes is None:
        raise InputError(f"{folder}: no classes.txt is beside the masks or in their run; add --classes FILE")
    table = scores or _beside(folder, SCORES)
    names = read_classes(classes)
    pictures = find_pictures(folder, photos, read_scores(table) if table else None)
    write_data_set(pictures, names, out, format, photos, min_area=min_area, tolerance=tolerance, rle=rle)
    if photos is None:
        print(f"without --photos: names of photos are assumed to end in {GUESSED}")


def write_data_set(
    pictures: Sequence[Picture],
    classes: Sequence[str],
    out: Path,
    format: Format,
    photos: Path | None,
    *,
    min_area: float = MIN_AREA,
    tolerance: float = TOLERANCE,
    rle: bool = False,
) -> None:
    """Write masks as a data set and print what was written; arguments and errors as in `write_labels`.

    Args:
        photos: folder of the photos; None: unknown.
    """
    folder = photos.resolve().name if photos else "photos"
    written = write_labels(
        pictures, classes, out, format, min_area=min_area, tolerance=tolerance, rle=rle, photos=folder
    )
    print(_report(written, out, format, min_area))


def find_pictures(
    folder: Path, photos: Path | None, scores: Mapping[str, float] | None = None
) -> list[Picture]:
    """Return the masks in a folder and its subfolders, each with its photo.

    Args:
        folder: folder of PNG files.
        photos: folder of photos with the same relative names, except for the extension; None: unknown.
        scores: expected IoU in [0, 1] by name; None: unknown.

    Raises:
        InputError: there is no mask, or a mask has no photo, several photos, no score, or a name that is not
            printable UTF-8.
    """
    files = sorted(path for path in folder.rglob("*.png") if not path.name.startswith("."))
    if not files:
        raise InputError(f"{folder}: must be a folder of masks (PNG), got none")
    known = _photos_by_name(photos) if photos else {}
    pictures, faults = [], []
    for mask in files:
        try:
            name = mask.relative_to(folder).with_suffix("").as_posix()
            pictures.append(_picture(name, mask, photos, known, scores))
        except InputError as error:
            faults.append(f"{mask}: {error}")
    if faults:
        raise InputError("\n".join(faults[:MOST_FAULTS]))
    return pictures


def read_scores(path: Path) -> dict[str, float]:
    """Return the expected IoU of each mask, in [0, 1], by its name.

    Raises:
        InputError: the file is neither an estimates.csv nor a summary.csv.
    """
    found = {}
    for row in csv.DictReader(io.StringIO(read_text(path))):
        try:
            is_summary = "mask" in row
            file = row["mask"].removeprefix("masks/") if is_summary else row["image"].removeprefix("images/")
            score = found[image_key(file)] = float(row["expected_iou"]) / 100
            if not 0 <= score <= 1:
                raise ValueError
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"{path}: must have a column image or mask, and expected_iou from 0 to 100, got {row}"
            ) from error
    return found


def _picture(
    name: str,
    mask: Path,
    photos: Path | None,
    known: Mapping[str, Sequence[Path]],
    scores: Mapping[str, float] | None,
) -> Picture:
    if not name.isprintable():  # an undecodable byte is a surrogate, which is not printable
        raise InputError(f"name must be printable UTF-8, got {name!r}")
    if scores is not None and name not in scores:
        raise InputError("must have a row in the table of scores, got none")
    score = None if scores is None else round(scores[name], 4)
    if photos is None:
        width, height = _size(mask)
        return Picture(name, mask, name + GUESSED, None, width, height, score)
    found = known.get(name, [])
    if len(found) != 1:
        several = " and ".join(map(str, found)) or "none"
        raise InputError(f"must have one photo {photos / name} with an extension of photos, got {several}")
    return picture_of(name, mask, photos, found[0], score)


def picture_of(name: str, mask: Path, photos: Path, photo: Path, score: float | None) -> Picture:
    """Return a mask with its photo, a file in the folder `photos`; see `Picture`.

    Raises:
        InputError: the photo cannot be read.
    """
    width, height = _size(photo)
    return Picture(name, mask, photo.relative_to(photos).as_posix(), photo, width, height, score)


def _size(path: Path) -> tuple[int, int]:
    try:
        return image_size(read_file(path))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _photos_by_name(photos: Path) -> Mapping[str, list[Path]]:
    """Return the photos by relative name, with and without extension: `plda predict` may keep it."""
    known: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(photos.rglob("*")):
        if path.suffix.lower() in ENDINGS:
            name = path.relative_to(photos)
            known[name.as_posix()] = [path]
            known[name.with_suffix("").as_posix()].append(path)
    return known


def _beside(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _report(written: Written, out: Path, format: Format, min_area: float) -> str:
    unit = " of the image" if min_area < 1 else " pixels"
    rows = [
        ("images", f"{written.images}"),
        ("objects", f"{written.objects.total()}"),
        *((f"  {name}", f"{count}") for name, count in sorted(written.objects.items())),
        (f"pieces below {min_area:g}{unit}, left out", f"{written.small}"),
        ("lowest IoU of an object read back", f"{written.lowest:.3f}"),
    ]
    wide = max(len(title) for title, _ in rows)
    return "\n".join([f"{out}: {format}", *(f"{title:{wide}} {value:>8}" for title, value in rows)])


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {text!r}")
    return number
