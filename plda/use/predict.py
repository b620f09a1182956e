"""The command predict."""

import argparse
import csv
import errno
import io
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from PIL import Image
from tqdm import tqdm

from plda.compute.device import named_device
from plda.compute.spread import spread
from plda.data.images import encode_mask, image_size, read_file, read_image
from plda.data.transforms import LEAST_SIDE
from plda.errors import InputError
from plda.files import delete_remains, read_note, sha256, write_bytes, write_json, write_text
from plda.masks.probabilities import USUAL
from plda.params import Compute, Device, Precision
from plda.use.network import WINDOW, Labelled, LongSide, TrainedNetwork
from plda.use.overlay import SIDE, draw_overlay
from plda.use.photos import Photo, find_photos

COLUMNS = ("photo", "mask", "class", "share", "confidence", "expected_iou")
KINDS = ("masks", "overlays", "labels")  # folders of what is written
UNFINISHED = ".predict.json"  # in OUT while photos are left: what they are labelled with
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # errors of every photo, not of one

Row = dict[str, Any]


def predict(
    photos: Sequence[str],
    *,
    network: Path,
    out: Path,
    overwrite: bool,
    overlays: bool,
    device: Device,
    long_side: LongSide,
    scales: Sequence[float],
    flip: bool,
    precision: Precision,
    window: int,
    refine: bool,
) -> None:
    """Label every pixel of photos with a trained network.

    Into the folder OUT go, of a photo NAME: masks/NAME.png, class ids in a palette; overlays/NAME.jpg, the
    classes over the photo, to look at; labels/NAME.json, which classes occur, each with its share of the area
    and its mean confidence, and the mask's expected IoU in percent, an estimate without a true mask. And of
    all together: summary.csv, the same as a table; classes.txt, the class of each id. All are upright and as
    large as the photo (overlays: at most 1600 pixels).

    A photo that cannot be labelled is named, the others are labelled all the same; the exit status is then 2.
    Stopped, or with photos left, the same command goes on: photos that are finished are not labelled again.
    """
    chosen = find_photos(photos, out)
    look = {
        "long_side": long_side,
        "scales": list(scales),
        "flip": flip,
        "precision": precision,
        "window": window,
        "refinement": USUAL if refine else {},
    }
    make = partial(_Labelling, network, out, overlays, look)
    labelling = make(named_device(device, "device"))
    settings = {
        "network": sha256(network),
        **look,
        "overlays": overlays,
    }
    since = _begin(out, settings, overwrite)
    rows = {photo.path: _finished(out, photo, since, overlays) for photo in chosen}
    left = [photo for photo in chosen if not rows[photo.path]]
    failed: list[Path] = []
    done = len(chosen) - len(left)
    compute = Compute(device=device, devices=1, precision=precision, workers=0)
    # at a photo's own size, one photo needs gigabytes
    with spread(make, compute, 0 if long_side == "full" else len(left), labelling) as label:
        try:
            show = tqdm(unit="photo", total=len(chosen), initial=done, disable=not sys.stderr.isatty())
            for photo, (found, fault) in zip(left, label(left), strict=True):
                rows[photo.path] = found
                if fault:
                    failed.append(photo.path)
                    tqdm.write(f"plda predict: error: {photo.path}: {fault}", file=sys.stderr)
                else:
                    done += 1
                show.update()
            show.close()
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(
                f"stopped by Ctrl-C after {done} of {len(chosen)} photos; the same command goes on from there"
            ) from stop
    write_text(out / "classes.txt", "\n".join(labelling.classes) + "\n")
    write_bytes(out / "summary.csv", _table([row for photo in chosen for row in rows[photo.path]]))
    print(f"{done} photos labelled: {out / 'summary.csv'}", file=sys.stderr)
    if failed:
        raise InputError(
            f"{len(failed)} of {len(chosen)} photos cannot be labelled, see above; "
            "the same command tries again"
        )
    (out / UNFINISHED).unlink()


class _Labelling:
    """Labels one photo after another, and writes what was made of them."""

    def __init__(
        self, network: Path, out: Path, overlays: bool, look: Mapping[str, Any], device: torch.device
    ) -> None:
        """Load the network at `path`; `look`: the arguments of TrainedNetwork."""
        self._network = TrainedNetwork(network, device=device.type, **look)
        self._out, self._overlays = out, overlays
        side = self._network.reading_side
        self._side = side and max(SIDE, side)
        self.classes = self._network.classes

    def load(self, photo: Photo) -> Photo:
        """Read nothing yet: what fails is told with the photo."""
        return photo

    def __call__(self, photo: Photo) -> tuple[list[Row], str]:
        """Return its rows of the table, and why it could not be labelled, or "".

        Raises:
            InputError: nothing can be written, of this photo or any other.
        """
        try:
            return _label(self._out, photo, self._network, self._side, self._overlays), ""
        except Exception as error:  # whatever it is, the other photos are labelled
            if _ends_the_batch(error):
                raise
            return [], _in_words(error)


def _begin(out: Path, settings: Row, overwrite: bool) -> int:
    """Prepare the folder; return from which time on, in ns, files in it were made with `settings`.

    Raises:
        InputError: it is a file, or holds what may not be replaced.
    """
    note = out / UNFINISHED
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out names a folder")
    before = read_note(note)
    if before == settings:
        for kind in KINDS:
            delete_remains((out / kind).rglob(".*.tmp"))
        return note.stat().st_mtime_ns
    if before and not overwrite:
        other = ", ".join(name for name in settings if settings[name] != before.get(name))
        raise InputError(
            f"{out}: holds an unfinished predict with another {other}; "
            "give the same command to go on, name a new folder, or give --overwrite"
        )
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out}: is there and not empty; name a new folder, or give --overwrite")
    write_json(note, settings)
    return note.stat().st_mtime_ns


def _finished(out: Path, photo: Photo, since: int, overlays: bool) -> list[Row]:
    """Return a photo's rows of the table if it was labelled before and has not changed since, else []."""
    path = out / f"labels/{photo.name}.json"  # written after the others
    try:
        about, written = read_note(path), path.stat().st_mtime_ns
        changed = photo.path.stat().st_mtime_ns
        others = [out / about["mask"]] + overlays * [out / f"overlays/{photo.name}.jpg"]
        if about["photo"] != str(photo.path) or not max(since, changed) <= written:
            return []
        return _rows(about) if all(other.is_file() for other in others) else []
    except (OSError, KeyError, TypeError):
        return []


def _label(out: Path, photo: Photo, labeller: TrainedNetwork, side: int | None, overlays: bool) -> list[Row]:
    """Label a photo, read at a long side of at least `side`, and write what was made of it.

    Returns:
        Its rows of the table.

    Raises:
        InputError: it cannot be read, or nothing can be written.
    """
    if photo.fault:
        raise InputError(photo.fault)
    content = read_file(photo.path)
    size, image = image_size(content), read_image(content, side)
    return _write(out, photo, image, labeller.label(image, size=size, confidence=False), overlays)


def _ends_the_batch(error: Exception) -> bool:
    cause = error.__cause__ if isinstance(error, InputError) else error
    return isinstance(cause, OSError) and cause.errno in DISK


def _in_words(error: Exception) -> str:
    """Return an error in one line, with its class if we did not expect it."""
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, InputError) else f"cannot be labelled: {type(error).__name__}: {text}"


def _write(out: Path, photo: Photo, image: Image.Image, labelled: Labelled, overlays: bool) -> list[Row]:
    """Write what was made of a photo; return its rows of the table."""
    height, width = labelled.ids.shape
    mask = f"masks/{photo.name}.png"
    contents = {mask: encode_mask(labelled.ids)}  # all before the first is written
    if overlays:
        buffer = io.BytesIO()
        draw_overlay(image, labelled.ids, labelled.found).save(buffer, "JPEG", quality=88)
        contents[f"overlays/{photo.name}.jpg"] = buffer.getvalue()
    for name, content in contents.items():
        write_bytes(out / name, content)
    found = [
        {
            "id": each.id,
            "class": each.name,
            "share": round(each.share, 6),
            "confidence": round(each.confidence, 4),
        }
        for each in labelled.found
    ]
    about = {
        "photo": str(photo.path),
        "mask": mask,
        "width": width,
        "height": height,
        "expected_iou": round(labelled.expected_iou, 2),
        "classes": found,
    }
    write_json(out / f"labels/{photo.name}.json", about)
    return _rows(about)


def _rows(about: Row) -> list[Row]:
    """Return the rows of the table that a file of labels tells."""
    photo = {key: about[key] for key in ("photo", "mask", "expected_iou")}
    return [{**photo, **each} for each in about["classes"]]


def _table(rows: Sequence[Row]) -> bytes:
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
        help="OUT may be there already and finished; files of the same name are replaced",
    )
    command.add_argument(
        "--no-overlays", dest="overlays", action="store_false", help="masks, labels and table alone"
    )
    command.add_argument(
        "--device", choices=get_args(Device), default="auto", help="auto: a GPU if there is one"
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
        "--no-refinement",
        dest="refine",
        action="store_false",
        help="the network's own outlines, which are coarse, and not fitted to the photo's colours; faster",
    )
    command.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="auto",
        help="of the network's numbers; auto: 32 bits, or bfloat16 where the device is faster with it",
    )
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
