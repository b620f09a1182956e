"""The gallery: some images with their maps and masks, as small pictures inside the page."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from plda.data.data_set import DataSet
from plda.data.images import VOID, encode_mask
from plda.data.index import Entry
from plda.masks.cams import Cams
from plda.masks.folder import Masks, mask_path, shares_of_ids

SIDE = 320  # pixels at most, to keep the page small
HEAT = matplotlib.colormaps["inferno"]
SPLITS = ("train", "val")
UNNAMED = 0.5  # percent of a mask; its caption omits classes with less, unless all classes have less


@dataclass(frozen=True)
class Picture:
    """One picture of an image.

    Attributes:
        title: kind of picture.
        alt: description of its content.
        uri: picture as a data: URI.
        width: width in pixels.
        height: height in pixels.
        shares: class id and percent of the pixels, for a mask; largest first, without background.
    """

    title: str
    alt: str
    uri: str
    width: int
    height: int
    shares: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Row:
    """One image with its pictures.

    Attributes:
        entry: row of the index.
        score: mean IoU of the image's mask in percent; None without a true mask.
        expected: expected IoU of the image's prediction in percent; None without a prediction.
        worst: whether the score is among the lowest of the split; if the split has no scores, whether the
            expected IoU is.
        cells: title and picture; the picture is None if it does not exist.
    """

    entry: Entry
    score: float | None
    expected: float | None
    worst: bool
    cells: tuple[tuple[str, Picture | None], ...]


def choose(entries: Sequence[Entry], count: int) -> list[Entry]:
    """Return at most `count` entries, half of them from each split, evenly spaced."""
    chosen = []
    for split, most in _halves(count):
        there = [entry for entry in entries if entry.split == split]
        shown = min(most, len(there))
        chosen += [there[i * len(there) // shown] for i in range(shown)]
    return chosen


def choose_worst(entries: Sequence[Entry], scores: Mapping[str, float], count: int) -> list[Entry]:
    """Return at most `count` entries with the lowest scores, half from each split; `scores` is by key."""
    chosen = []
    for split, most in _halves(count):
        there = [entry for entry in entries if entry.split == split and entry.key in scores]
        chosen += sorted(there, key=lambda entry: scores[entry.key])[:most]
    return chosen


def make_rows(
    data: DataSet,
    entries: Iterable[Entry],
    worst: Sequence[Entry],
    scores: Mapping[str, float],
    expected: Mapping[str, float],
    cams: Cams,
    pseudo_masks: Path,
    predictions: Path,
) -> list[Row]:
    """Make a row for each entry: image, heat map, pseudo-mask, prediction, truth.

    Args:
        data: the data set.
        entries: entries to show; only those of split train with tags have maps.
        worst: entries to show after `entries`; those that are in `entries` are not repeated.
        scores: mean IoU of each scored entry, by key.
        expected: expected IoU of each prediction, by the entry's key.
        cams: class activation maps of the training images.
        pseudo_masks: folder of pseudo-masks; an entry's mask may be missing.
        predictions: folder of predicted masks; an entry's mask may be missing.
    """
    low = {entry.key for entry in worst}
    rows = []
    for entry in dict.fromkeys([*entries, *worst]):
        photo = Image.fromarray(data.image(entry).permute(1, 2, 0).numpy())
        photo.thumbnail((SIDE, SIDE))
        tagged = ", ".join(entry.tags) or "with no class"
        mapped = entry.teaches and entry.tags
        heat = _heat_map(photo, cams, entry) if mapped else None
        truth = data.true_mask(entry) if entry.mask else None
        masks = {
            "pseudo-mask": _mask_of(pseudo_masks, entry),
            "prediction": _mask_of(predictions, entry),
            "truth": truth,
        }
        cells: list[tuple[str, Picture | None]] = [
            ("image", _jpeg(photo, "image", f"tagged {tagged}")),
            ("heat map", heat),
        ]
        for title, ids in masks.items():
            shown = None if ids is None else _mask(ids, photo.size, title, data.classes)
            cells.append((title, shown))
        key = entry.key
        rows.append(Row(entry, scores.get(key), expected.get(key), key in low, tuple(cells)))
    return rows


def _halves(count: int) -> tuple[tuple[str, int], ...]:
    return tuple(zip(SPLITS, (count - count // 2, count // 2), strict=True))


def _mask_of(folder: Path, entry: Entry) -> np.ndarray | None:
    return Masks(folder)(entry) if mask_path(folder, entry).exists() else None


def _heat_map(photo: Image.Image, cams: Cams, entry: Entry) -> Picture:
    """Draw the map that is strongest on average over the grey photo; strong activation hides the photo."""
    maps = cams.read(entry.key).numpy()  # (K, h, w)
    winner = int(maps.mean(axis=(1, 2)).argmax())
    heat = np.asarray(Image.fromarray(maps[winner]).resize(photo.size, Image.Resampling.BILINEAR))
    grey = np.asarray(photo.convert("L").convert("RGB")) / 255
    weight = 0.45 + 0.4 * heat[..., None]
    mixed = (1 - weight) * grey + weight * HEAT(heat)[..., :3]
    pixels = Image.fromarray((255 * mixed).round().astype(np.uint8))
    tag = entry.tags[winner]
    return _jpeg(pixels, f"heat map: {tag}", f"where the classifier responds to {tag}")


def _mask(ids: np.ndarray, size: tuple[int, int], title: str, classes: Sequence[str]) -> Picture:
    names = dict(enumerate(classes)) | {VOID: "undecided" if title != "truth" else "unlabelled"}
    shares = shares_of_ids(ids)
    alt = ", ".join(f"{share:.0f} % {names.get(i, i)}" for i, share in shares)
    small = Image.fromarray(ids).resize(size, Image.Resampling.NEAREST)
    objects = [(i, share) for i, share in shares if i]
    named = tuple(it for it in objects if it[1] >= UNNAMED) or tuple(objects)  # all are small: name them
    return _picture(title, alt, encode_mask(np.asarray(small)), "png", size, named)


def _jpeg(image: Image.Image, title: str, alt: str) -> Picture:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=80)
    return _picture(title, alt, buffer.getvalue(), "jpeg", image.size)


def _picture(
    title: str,
    alt: str,
    content: bytes,
    kind: str,
    size: tuple[int, int],
    shares: tuple[tuple[int, float], ...] = (),
) -> Picture:
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Picture(title, alt, uri, *size, shares)
