"""The command predict: label every pixel of photos."""

import argparse
import csv
import errno
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from PIL import Image
from tqdm import tqdm

from plda.compute.device import named_device
from plda.compute.parallel import parallel_map
from plda.data.images import encode_mask, image_size, read_file, read_image
from plda.errors import InputError
from plda.files import delete_remains, read_note, sha256, write_bytes, write_json, write_text
from plda.params import Compute, Device, Precision
from plda.sources.folder import read_tags_of_files
from plda.use.flags import add_network_flags, inference_settings
from plda.use.labels import picture_of, write_data_set
from plda.use.network import Labelled, LongSide, TrainedNetwork
from plda.use.overlay import SIDE, draw_overlay
from plda.use.photos import Photo, find_photos
from plda.writers.write import Format, check_folder

COLUMNS = ("photo", "mask", "class", "share", "confidence", "expected_iou")
KINDS = ("masks", "overlays", "labels")  # output folders
UNFINISHED = ".predict.json"  # in OUT while photos are left: the settings of the run
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # errors that all photos have, not one

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
    tags: Path | None,
    format: Format | None,
) -> None:
    """Label every pixel of photos with a trained network.

    For a photo NAME, the folder OUT gets: masks/NAME.png, class ids in a palette image; overlays/NAME.jpg,
    the classes drawn over the photo; labels/NAME.json, the classes that occur, each with its share of the
    area and its mean confidence, and the mask's expected IoU in percent, an estimate without a true mask. For
    all photos: summary.csv, the same values as a table; classes.txt, the class of each id. Masks are upright
    and as large as the photo; overlays have at most 1600 pixels per side.

    A photo that cannot be labelled is reported, and the others are still labelled; the exit status is then 2.
    After an interruption, or if photos are left, the same command continues: finished photos are not labelled
    again.

    With a table of tags, a photo that it lists gets only the classes of its tags, and background.

    With a format, the folder OUT/FORMAT gets the data set that `plda labels` would write, after all photos
    are labelled.
    """
    chosen = find_photos(photos, out)
    if format:
        check_folder(out / format)
        for photo in chosen:
            if not photo.name.isprintable():
                raise InputError(f"{photo.path}: name must be printable UTF-8 for --format; rename it")
    look = inference_settings(
        long_side=long_side, scales=scales, flip=flip, precision=precision, window=window, refine=refine
    )
    make = partial(_Labelling, network, out, overlays, look)
    labelling = make(named_device(device, "device"))
    if tags:
        known = {path.resolve(): own for path, own in read_tags_of_files(tags, labelling.classes).items()}
        chosen = [replace(photo, tags=known.get(photo.path.resolve())) for photo in chosen]
    settings = {
        "network": sha256(network),
        **look,
        "overlays": overlays,
        "tags": tags and sha256(tags),
    }
    since = _begin(out, settings, overwrite)
    rows = {photo.path: _finished(out, photo, since, overlays) for photo in chosen}
    left = [photo for photo in chosen if not rows[photo.path]]
    failed: list[Path] = []
    done = len(chosen) - len(left)
    compute = Compute(device=device, devices=1, precision=precision, workers=0)
    # at full size, one photo needs gigabytes
    with parallel_map(make, compute, 0 if long_side == "full" else len(left), labelling) as label:
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
                f"stopped by Ctrl-C after {done} of {len(chosen)} photos; run the same command to continue"
            ) from stop
    write_text(out / "classes.txt", "\n".join(labelling.classes) + "\n")
    write_bytes(out / "summary.csv", _table([row for photo in chosen for row in rows[photo.path]]))
    print(f"{done} photos labelled: {out / 'summary.csv'}", file=sys.stderr)
    if failed:
        raise InputError(
            f"{len(failed)} of {len(chosen)} photos cannot be labelled, see above; "
            "run the same command to try again"
        )
    if format:
        _write_data_set(out, chosen, rows, labelling.classes, format)
    (out / UNFINISHED).unlink()


class _Labelling:
    """A function that labels a photo and writes the outputs."""

    def __init__(
        self, network: Path, out: Path, overlays: bool, look: Mapping[str, Any], device: torch.device
    ) -> None:
        """Load the network at path `network`; `look`: the arguments of TrainedNetwork."""
        self._network = TrainedNetwork(network, device=device.type, **look)
        self._out, self._overlays = out, overlays
        self.classes = self._network.classes

    def load(self, photo: Photo) -> Photo:
        """Read nothing yet: reading errors are reported with the photo."""
        return photo

    def __call__(self, photo: Photo) -> tuple[list[Row], str]:
        """Return the photo's rows of the table, and why it could not be labelled, or "".

        Raises:
            InputError: the output cannot be written, for this photo or any other.
        """
        try:
            return self._label(photo), ""
        except Exception as error:  # any error: the other photos are still labelled
            if _ends_the_batch(error):
                raise
            return [], _in_words(error)

    def _label(self, photo: Photo) -> list[Row]:
        """Label a photo and write the outputs; return its rows of the table.

        Raises:
            InputError: the photo cannot be read, or the outputs cannot be written.
        """
        if photo.fault:
            raise InputError(photo.fault)
        content = read_file(photo.path)
        size, image = image_size(content), read_photo(content, self._network)
        labelled = self._network.label(image, size=size, confidence=False, tags=photo.tags)
        return _write(self._out, photo, image, labelled, self._overlays)


def read_photo(content: bytes, network: TrainedNetwork) -> Image.Image:
    """Decode a photo, at least as large as the network and the overlay need it.

    Raises:
        InputError: as `read_image`.
    """
    side = network.reading_side
    return read_image(content, side and max(SIDE, side))


def classes_found(labelled: Labelled) -> list[Row]:
    """Return the classes of a photo, as in its labels file: id, class, share and confidence."""
    return [
        {
            "id": each.id,
            "class": each.name,
            "share": round(each.share, 6),
            "confidence": round(each.confidence, 4),
        }
        for each in labelled.found
    ]


def _begin(out: Path, settings: Row, overwrite: bool) -> int:
    """Prepare the output folder; return the time in ns after which files in it were made with `settings`.

    Raises:
        InputError: `out` is a file, or holds files that must not be replaced.
    """
    note = out / UNFINISHED
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out must be a folder")
    before = read_note(note)
    if before == settings:
        for kind in KINDS:
            delete_remains((out / kind).rglob(".*.tmp"))
        return note.stat().st_mtime_ns
    if before and not overwrite:
        other = ", ".join(name for name in settings if settings[name] != before.get(name))
        raise InputError(
            f"{out}: holds an unfinished predict with another {other}; "
            "run the same command to continue, choose a new folder, or add --overwrite"
        )
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out}: exists and is not empty; choose a new folder, or add --overwrite")
    write_json(note, settings)
    return note.stat().st_mtime_ns


def _finished(out: Path, photo: Photo, since: int, overlays: bool) -> list[Row]:
    """Return a photo's rows of the table if it is labelled and has not changed since, else []."""
    path = out / f"labels/{photo.name}.json"  # written last
    try:
        about, written = read_note(path), path.stat().st_mtime_ns
        changed = photo.path.stat().st_mtime_ns
        others = [out / about["mask"]] + overlays * [out / f"overlays/{photo.name}.jpg"]
        if about["photo"] != str(photo.path) or not max(since, changed) <= written:
            return []
        return _rows(about) if all(other.is_file() for other in others) else []
    except (OSError, KeyError, TypeError):
        return []


def _ends_the_batch(error: Exception) -> bool:
    cause = error.__cause__ if isinstance(error, InputError) else error
    return isinstance(cause, OSError) and cause.errno in DISK


def _in_words(error: Exception) -> str:
    """Return an error in one line, with its class if it is not an InputError."""
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, InputError) else f"cannot be labelled: {type(error).__name__}: {text}"


def _write(out: Path, photo: Photo, image: Image.Image, labelled: Labelled, overlays: bool) -> list[Row]:
    """Write the outputs of a photo; return its rows of the table."""
    height, width = labelled.ids.shape
    mask = f"masks/{photo.name}.png"
    contents = {mask: encode_mask(labelled.ids)}  # encode all before the first is written
    if overlays:
        buffer = io.BytesIO()
        draw_overlay(image, labelled.ids, labelled.found).save(buffer, "JPEG", quality=88)
        contents[f"overlays/{photo.name}.jpg"] = buffer.getvalue()
    for name, content in contents.items():
        write_bytes(out / name, content)
    about = {
        "photo": str(photo.path),
        "mask": mask,
        "width": width,
        "height": height,
        "expected_iou": round(labelled.expected_iou, 2),
        "classes": classes_found(labelled),
    }
    write_json(out / f"labels/{photo.name}.json", about)
    return _rows(about)


def _write_data_set(
    out: Path,
    photos: Sequence[Photo],
    rows: Mapping[Path, Sequence[Row]],
    classes: Sequence[str],
    format: Format,
) -> None:
    """Write the masks of photos as a data set into OUT/FORMAT.

    Raises:
        InputError: as `write_labels`.
    """
    first = photos[0]
    top = first.path.parents[len(Path(first.name).parents) - 1]  # names are relative to it
    pictures = [
        picture_of(
            photo.name,
            out / f"masks/{photo.name}.png",
            top,
            photo.path,
            score=round(rows[photo.path][0]["expected_iou"] / 100, 4),
        )
        for photo in photos
    ]
    pictures.sort(key=lambda picture: picture.mask)
    write_data_set(pictures, classes, out / format, format, top)


def _rows(about: Row) -> list[Row]:
    """Return the rows of the table from the content of a labels file."""
    photo = {key: about[key] for key in ("photo", "mask", "expected_iou")}
    return [{**photo, **each} for each in about["classes"]]


def _table(rows: Sequence[Row]) -> bytes:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode(errors="surrogateescape")  # a file name may have any encoding


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the flags of the command: the arguments of `predict`."""
    command.add_argument(
        "photos",
        nargs="+",
        metavar="PHOTO",
        help="files, folders (with subfolders), or quoted patterns like 'photos/**/*.jpg'",
    )
    command.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="output folder")
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="allow an OUT that is not empty; files of the same name are replaced",
    )
    command.add_argument(
        "--no-overlays", dest="overlays", action="store_false", help="write only masks, labels and the table"
    )
    add_network_flags(command)
    command.add_argument(
        "--tags",
        type=Path,
        metavar="FILE",
        help="a table with the columns image and tags, like tags.csv: only these classes are allowed",
    )
    command.add_argument(
        "--format",
        choices=get_args(Format),
        help="write the masks as a data set for another program, too, into OUT/FORMAT, as `plda labels` does",
    )
