"""The command predict."""

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from plda.data.images import encode_mask, image_size, read_file, read_image
from plda.errors import InputError
from plda.files import write_bytes, write_json, write_text
from plda.use.network import WINDOW, Labelled, LongSide, TrainedNetwork
from plda.use.overlay import SIDE, draw_overlay
from plda.use.photos import Photo, find_photos

LEAST_SIDE = 32  # pixels, of what a network sees: its last feature map is so much smaller
COLUMNS = ("photo", "mask", "class", "share", "confidence")


def predict(
    photos: Sequence[str],
    *,
    network: Path,
    out: Path,
    overwrite: bool,
    overlays: bool,
    device: str,
    long_side: LongSide,
    scales: Sequence[float],
    flip: bool,
    window: int,
) -> None:
    """Label every pixel of photos with a trained network.

    Into the folder OUT go, of a photo NAME: masks/NAME.png, class ids in a palette; overlays/NAME.jpg, the
    classes over the photo, to look at; labels/NAME.json, which classes occur, each with its share of the area
    and its mean confidence. And of all together: summary.csv, the same as a table; classes.txt, the class of
    each id. All are upright and as large as the photo (overlays: at most 1600 pixels).

    A photo that cannot be read is named, the others are labelled all the same; the exit status is then 2.
    """
    chosen = find_photos(photos, out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out names a folder")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out}: is there and not empty; name a new folder, or give --overwrite")
    labeller = TrainedNetwork(
        network, device=device, long_side=long_side, scales=scales, flip=flip, window=window
    )
    side = labeller.reading_side and max(SIDE, labeller.reading_side)
    rows, unread = [], 0
    for photo in tqdm(chosen, unit="photo", disable=not sys.stderr.isatty()):
        try:
            content = read_file(photo.path)
            size, image = image_size(content), read_image(content, side)
        except InputError as error:
            unread += 1
            tqdm.write(f"plda predict: error: {photo.path}: {error}", file=sys.stderr)
            continue
        rows += _write(out, photo, image, labeller.label(image, size=size, confidence=False), overlays)
    write_text(out / "classes.txt", "\n".join(labeller.classes) + "\n")
    write_bytes(out / "summary.csv", _table(rows))
    print(f"{len(chosen) - unread} photos labelled: {out / 'summary.csv'}", file=sys.stderr)
    if unread:
        raise InputError(f"{unread} of {len(chosen)} photos cannot be read, see above")


def _write(
    out: Path, photo: Photo, image: Image.Image, labelled: Labelled, overlays: bool
) -> list[dict[str, Any]]:
    """Write what was made of a photo; return its rows of the table."""
    height, width = labelled.ids.shape
    mask = f"masks/{photo.name}.png"
    write_bytes(out / mask, encode_mask(labelled.ids))
    if overlays:
        buffer = io.BytesIO()
        draw_overlay(image, labelled.ids, labelled.found).save(buffer, "JPEG", quality=88)
        write_bytes(out / f"overlays/{photo.name}.jpg", buffer.getvalue())
    found = [
        {
            "id": each.id,
            "class": each.name,
            "share": round(each.share, 6),
            "confidence": round(each.confidence, 4),
        }
        for each in labelled.found
    ]
    about = {"photo": str(photo.path), "mask": mask, "width": width, "height": height}
    write_json(out / f"labels/{photo.name}.json", {**about, "classes": found})
    return [{**about, **each} for each in found]


def _table(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode(errors="surrogateescape")  # a file's name may be in any encoding


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The command's flags: the arguments of `predict`."""
    command.add_argument(
        "photos",
        nargs="+",
        metavar="PHOTO",
        help="files, folders (with all that are in them), or quoted patterns like 'photos/**/*.jpg'",
    )
    command.add_argument(
        "--network", type=Path, required=True, metavar="FILE", help="network.pt of the stage train_segmenter"
    )
    command.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where masks are written")
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="OUT may be there already; files of the same name are replaced",
    )
    command.add_argument(
        "--no-overlays", dest="overlays", action="store_false", help="masks, labels and table alone"
    )
    command.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="auto: a GPU if there is one"
    )
    command.add_argument(
        "--long-side",
        type=_long_side,
        default="trained",
        metavar="PIXELS",
        help="the photo's, as the network sees it; trained (the default): as in its training, where objects "
        "had the size that it knows; full: the photo's own",
    )
    command.add_argument(
        "--scales",
        type=_scales,
        default=(1.0,),
        metavar="FACTORS",
        help="looks at the photo at several sizes, for instance 0.75,1,1.25, which takes longer",
    )
    command.add_argument("--flip", action="store_true", help="looks at the mirrored photo, too")
    command.add_argument(
        "--window",
        type=_side,
        default=WINDOW,
        metavar="PIXELS",
        help="what is larger is seen through overlapping windows of this side (default: %(default)s); "
        "smaller ones take less memory",
    )


def _side(text: str) -> int:
    if not text.isdecimal() or int(text) < LEAST_SIDE:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of pixels, at least {LEAST_SIDE}")
    return int(text)


def _long_side(text: str) -> LongSide:
    match text:
        case "trained" | "full":
            return text
        case _:
            return _side(text)


def _scales(text: str) -> tuple[float, ...]:
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        scales = (0.0,)
    if not all(0 < scale <= 4 for scale in scales):  # more is a slip: it costs the square in memory
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of factors above 0, up to 4, divided by commas"
        )
    return scales
