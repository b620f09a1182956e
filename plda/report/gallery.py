"""The gallery: a few images with what the run made of them, as small pictures inside the page."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from plda.data.archive import Archive
from plda.data.images import VOID, encode_mask, read_image
from plda.data.index import Entry
from plda.data.loading import load_true_mask
from plda.masks.cams import Cams
from plda.masks.folder import load_mask, mask_path

SIDE = 240  # pixels, at most; the page stays small
HEAT = matplotlib.colormaps["inferno"]


@dataclass(frozen=True)
class Picture:
    """One cell: a data: URI, its size in pixels, and what it shows in words."""

    title: str
    alt: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Row:
    """One image: its entry, and a cell for each column, None where there is nothing to show."""

    entry: Entry
    cells: tuple[tuple[str, Picture | None], ...]


def choose(entries: Sequence[Entry], count: int) -> list[Entry]:
    """At most `count` entries, half of them from each split, evenly spaced."""
    chosen = []
    for split, most in (("train", count - count // 2), ("val", count // 2)):
        there = [entry for entry in entries if entry.split == split]
        shown = min(most, len(there))
        chosen += [there[i * len(there) // shown] for i in range(shown)]
    return chosen


def make_rows(
    entries: Iterable[Entry],
    classes: Sequence[str],
    archive: Archive,
    cams: Cams,
    pseudo_masks: Path,
    predictions: Path,
) -> list[Row]:
    """A row for each entry: image, heat map, pseudo-mask, prediction, truth.

    Args:
        entries: what is shown; only those of split train have maps.
        classes: class names, background first.
        archive: of the data set.
        cams: the maps of the training images.
        pseudo_masks: folder of masks; an entry's may be missing.
        predictions: the same.
    """
    rows = []
    for entry in entries:
        photo = read_image(archive.read(entry.image))
        photo.thumbnail((SIDE, SIDE))
        heat = _heat_map(photo, cams, entry) if entry.split == "train" else None
        truth = load_true_mask(archive, entry.mask) if entry.mask else None
        masks = {
            "pseudo-mask": _mask_of(pseudo_masks, entry),
            "prediction": _mask_of(predictions, entry),
            "truth": truth,
        }
        cells: list[tuple[str, Picture | None]] = [
            ("image", _jpeg(photo, "image", f"tagged {', '.join(entry.tags)}")),
            ("heat map", heat),
        ]
        for title, ids in masks.items():
            shown = None if ids is None else _mask(ids, photo.size, title, classes)
            cells.append((title, shown))
        rows.append(Row(entry, tuple(cells)))
    return rows


def _mask_of(folder: Path, entry: Entry) -> np.ndarray | None:
    return load_mask(folder, entry) if mask_path(folder, entry).exists() else None


def _heat_map(photo: Image.Image, cams: Cams, entry: Entry) -> Picture:
    """The map that is strongest on average, over a grey photo: the stronger, the less photo."""
    maps = cams.read(entry.key).numpy()  # (K, h, w)
    winner = int(maps.mean(axis=(1, 2)).argmax())
    heat = np.asarray(Image.fromarray(maps[winner]).resize(photo.size, Image.Resampling.BILINEAR))
    grey = np.asarray(photo.convert("L").convert("RGB")) / 255
    weight = 0.45 + 0.4 * heat[..., None]
    mixed = (1 - weight) * grey + weight * HEAT(heat)[..., :3]
    pixels = Image.fromarray((255 * mixed).round().astype(np.uint8))
    tag = entry.tags[winner]
    return _jpeg(pixels, f"heat map: {tag}", f"where the classifier saw {tag}")


def _mask(ids: np.ndarray, size: tuple[int, int], title: str, classes: Sequence[str]) -> Picture:
    counts = np.bincount(ids.ravel(), minlength=VOID + 1)
    names = dict(enumerate(classes)) | {VOID: "undecided" if title != "truth" else "unlabelled"}
    order = [i for i in counts.argsort()[::-1] if counts[i]]
    shares = ", ".join(f"{100 * counts[i] / ids.size:.0f} % {names.get(i, i)}" for i in order)
    small = Image.fromarray(ids).resize(size, Image.Resampling.NEAREST)
    return _picture(title, shares, encode_mask(np.asarray(small)), "png", size)


def _jpeg(image: Image.Image, title: str, alt: str) -> Picture:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=82)
    return _picture(title, alt, buffer.getvalue(), "jpeg", image.size)


def _picture(title: str, alt: str, content: bytes, kind: str, size: tuple[int, int]) -> Picture:
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Picture(title, alt, uri, *size)
