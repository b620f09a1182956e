"""Drawn PASCAL VOC 2012 and SBD: small archives with the published layout, formats and quirks.

Each class has its own colour and one of three shapes, so that a network can learn them. The lists overlap
as the real ones do. VOC masks have void outlines and void difficult objects; SBD masks have neither.
"""

import colorsys
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageDraw
from scipy.io import savemat
from scipy.ndimage import maximum_filter, minimum_filter
from scipy.sparse import csc_matrix

from plda.sources.voc import CLASSES

VOID = 255
DEVKIT, SBD = "VOCdevkit/VOC2012", "benchmark_RELEASE/dataset"
SETS = "ImageSets/Segmentation"
DEMO = "benchmark_RELEASE/benchmark_code_RELEASE/demo/datadir"  # contains separate lists


@dataclass(frozen=True)
class DrawnVoc:
    """The archives and the values expected from a correct reader.

    Attributes:
        devkit: path of VOCtrainval_11-May-2012.tar.
        extra: path of benchmark.tgz.
        test: path of VOC2012test.tar.
        lists: sorted ids of voc_train, voc_val, sbd_train, sbd_val, trainaug, test.
        tags: sorted tags of each image in trainaug and voc_val.
        masks: expected mask of each of these images, (H, W) uint8.
    """

    devkit: Path
    extra: Path
    test: Path
    lists: dict[str, list[str]]
    tags: dict[str, tuple[str, ...]]
    masks: dict[str, np.ndarray]

    @property
    def counts(self) -> dict[str, int]:
        return {name: len(ids) for name, ids in self.lists.items()}


@dataclass(frozen=True)
class Thing:
    """An object in a photo; `box` is left, top, right, bottom, all inclusive."""

    label: int
    box: tuple[int, int, int, int]
    difficult: bool

    @property
    def name(self) -> str:
        return CLASSES[self.label]


@dataclass(frozen=True)
class Scene:
    """A photo as JPEG, its objects, and `owner`, (H, W) uint8: the object of each pixel, counted from 1."""

    photo: bytes
    things: list[Thing]
    owner: np.ndarray

    def classes(self, *, void: bool) -> np.ndarray:
        """Return (H, W) uint8 class ids, with void as in VOC or without as in SBD."""
        ids = np.array([0, *(VOID if void and t.difficult else t.label for t in self.things)], np.uint8)
        return np.where(outlines(self.owner) & void, VOID, ids[self.owner]).astype(np.uint8)


def draw_voc(
    folder: Path,
    *,
    train: int = 8,
    val: int = 4,
    test: int = 2,
    classes: tuple[str, ...] = ("dog", "person", "cat"),
    seed: int = 0,
) -> DrawnVoc:
    """Write the three archives to `folder`.

    Args:
        folder: output folder; created if missing.
        train: number of trainaug images; from 5 on, the lists overlap in all ways. Each class is in train if
            there are at least as many images as classes.
        val: number of VOC val images; from 3 on, the lists overlap in all ways.
        test: number of images without annotations.
        classes: names of the VOC classes to draw.
        seed: seed of all random choices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    labels = [CLASSES.index(name) for name in classes]
    ids = [f"{2007 + i % 5}_{i:06}" for i in range(train + val + test + 1)]  # one extra id is in no list
    scenes = {
        name: draw_scene(np.random.default_rng([seed, i]), i, labels, difficult=i % 7 == 3)
        for i, name in enumerate(ids)
    }
    ours, theirs, unmasked = ids[:train], ids[train : train + val], ids[train + val : train + val + test]
    lists = {
        "voc_train": [name for i, name in enumerate(ours) if i % 5 in (0, 1, 4)],
        "voc_val": theirs,
        "sbd_train": [n for i, n in enumerate(ours) if i % 5 in (1, 2)] + theirs[::3],
        "sbd_val": [n for i, n in enumerate(ours) if i % 5 in (3, 4)] + theirs[1::3],
        "trainaug": ours,
        "test": unmasked,
    }
    lists = {name: sorted(listed) for name, listed in lists.items()}
    own = {*lists["voc_train"], *lists["voc_val"]}
    drawn = DrawnVoc(
        devkit=folder / "VOCtrainval_11-May-2012.tar",
        extra=folder / "benchmark.tgz",
        test=folder / "VOC2012test.tar",
        lists=lists,
        tags={name: tuple(sorted({t.name for t in scenes[name].things})) for name in [*ours, *theirs]},
        masks={name: scenes[name].classes(void=name in own) for name in [*ours, *theirs]},
    )
    annotated = {name: scenes[name] for name in ids if name not in unmasked}
    write_tar(drawn.devkit, devkit_files(annotated, lists))
    write_tar(drawn.extra, sbd_files(annotated, lists))
    photos = {f"{DEVKIT}/JPEGImages/{name}.jpg": scenes[name].photo for name in unmasked}
    write_tar(drawn.test, {f"{DEVKIT}/{SETS}/test.txt": lines(unmasked), **photos})
    return drawn


def devkit_files(scenes: Mapping[str, Scene], lists: Mapping[str, list[str]]) -> dict[str, bytes]:
    """Return the files of VOCtrainval by name."""
    trainval = sorted(lists["voc_train"] + lists["voc_val"])
    files = {f"Annotations/{name}.xml": annotation(name, scene) for name, scene in scenes.items()}
    for part, listed in (("train", lists["voc_train"]), ("val", lists["voc_val"]), ("trainval", trainval)):
        files[f"{SETS}/{part}.txt"] = lines(listed)
    files |= {f"JPEGImages/{name}.jpg": scene.photo for name, scene in scenes.items()}
    files |= {f"SegmentationClass/{n}.png": palette_png(scenes[n].classes(void=True)) for n in trainval}
    return {f"{DEVKIT}/{name}": content for name, content in files.items()}


def sbd_files(scenes: Mapping[str, Scene], lists: Mapping[str, list[str]]) -> dict[str, bytes]:
    """Return the files of SBD's archive by name, including its demo."""
    files = {f"{SBD}/{part}.txt": lines(lists[f"sbd_{part}"]) for part in ("train", "val")}
    files |= {f"{DEMO}/{part}.txt": lines(lists["sbd_train"][:1]) for part in ("train", "val")}
    for name in [*lists["sbd_train"], *lists["sbd_val"]]:
        scene = scenes[name]
        labels = [thing.label for thing in scene.things]
        files[f"{SBD}/img/{name}.jpg"] = scene.photo
        files[f"{SBD}/cls/{name}.mat"] = class_mat(scene.classes(void=False))
        edges = cells([outlines(scene.owner == k) for k in range(1, len(labels) + 1)])
        inst = {"Segmentation": scene.owner, "Boundaries": edges, "Categories": column(labels)}
        files[f"{SBD}/inst/{name}.mat"] = mat("GTinst", inst)
    demo = {name.replace(SBD, DEMO): files[name] for name in files if lists["sbd_train"][0] in name}
    return {**files, **demo}


def draw_scene(rng: np.random.Generator, number: int, labels: list[int], *, difficult: bool) -> Scene:
    """Draw one or two objects side by side on noise; the first has class `labels[number % len(labels)]`."""
    width, height = int(rng.integers(64, 97)), int(rng.integers(48, 81))
    ground = Image.fromarray(rng.integers(60, 200, (6, 8, 3), np.uint8)).resize((width, height))
    owner = Image.new("L", (width, height))
    count = 1 + (number + number // 2) % 2
    things = []
    for k in range(count):
        place = (number + k) % len(labels)
        left, right = width * k // count + rng.integers(2, 6), width * (k + 1) // count - rng.integers(2, 6)
        top, bottom = rng.integers(3, 10), height - rng.integers(3, 10)
        outer = (int(left), int(top), int(right), int(bottom))
        for image, fill in ((ground, colour(place / len(labels))), (owner, k + 1)):
            draw_shape(ImageDraw.Draw(image), place % 3, outer, fill)
        ys, xs = np.nonzero(np.asarray(owner) == k + 1)
        box = (int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max()))
        things.append(Thing(labels[place], box, difficult=difficult and k == count - 1))
    noisy = np.asarray(ground) + rng.normal(0, 8, (height, width, 3))
    photo = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(photo, "JPEG", quality=95)
    return Scene(photo.getvalue(), things, np.asarray(owner))


def draw_shape(pen: ImageDraw.ImageDraw, kind: int, box: tuple[int, int, int, int], fill: Any) -> None:
    left, top, right, bottom = box
    if kind == 0:
        pen.ellipse(box, fill=fill)
    elif kind == 1:
        pen.rectangle(box, fill=fill)
    else:
        pen.polygon([(left, bottom), ((left + right) // 2, top), (right, bottom)], fill=fill)


def colour(hue: float) -> tuple[int, ...]:
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.9, 0.9))


def outlines(ids: np.ndarray) -> np.ndarray:
    """Return (H, W) bool: pixels whose 3x3 neighbourhood contains more than one id."""
    ids = ids.astype(np.uint8)
    return np.asarray(maximum_filter(ids, 3) != minimum_filter(ids, 3))


def lines(names: list[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()


def annotation(name: str, scene: Scene) -> bytes:
    """Return VOC annotation XML; a person has a part with a separate name and box."""
    height, width = scene.owner.shape
    objects = []
    for thing in scene.things:
        fields: list[Any] = [("name", thing.name), ("pose", "Unspecified"), ("truncated", "0")]
        fields += [("difficult", f"{thing.difficult:d}"), ("bndbox", bounds(thing.box))]
        if thing.name == "person":
            left, top, right, bottom = thing.box
            fields.append(("part", [("name", "head"), ("bndbox", bounds((left, top, right, bottom // 2)))]))
        objects.append(("object", fields))
    source = [("database", "The VOC2007 Database"), ("annotation", "PASCAL VOC2007"), ("image", "flickr")]
    size = [("width", f"{width}"), ("height", f"{height}"), ("depth", "3")]
    start = [("folder", "VOC2012"), ("filename", f"{name}.jpg"), ("source", source), ("size", size)]
    root = element("annotation", [*start, ("segmented", "1"), *objects])
    ElementTree.indent(root, "\t")
    return ElementTree.tostring(root)


def element(name: str, content: str | list[Any]) -> ElementTree.Element:
    """Return an XML element; `content` is its text or the (name, content) pairs of its children."""
    made = ElementTree.Element(name)
    if isinstance(content, str):
        made.text = content
    else:
        made.extend(element(*pair) for pair in content)
    return made


def bounds(box: tuple[int, int, int, int]) -> list[tuple[str, str]]:
    """Return a box in VOC's pixel coordinates, which start at 1."""
    names = ("xmin", "ymin", "xmax", "ymax")
    return [(name, str(place + 1)) for name, place in zip(names, box, strict=True)]


def palette_png(ids: np.ndarray) -> bytes:
    """Return a PNG with VOC's palette: the bits of an id, three at a time, are the high bits of R, G, B."""
    ramp = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= ((ramp >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    image = Image.fromarray(ids)
    image.putpalette(palette.tobytes())
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def class_mat(ids: np.ndarray) -> bytes:
    """Return a file of SBD's cls: a mask, the outlines of each of the 20 classes, and the present classes."""
    edges = cells([outlines(ids == label) for label in range(1, len(CLASSES))])
    present = column([int(label) for label in np.unique(ids) if label])
    return mat("GTcls", {"Boundaries": edges, "Segmentation": ids, "CategoriesPresent": present})


def mat(name: str, fields: dict[str, Any], *, compressed: bool = True) -> bytes:
    content = io.BytesIO()
    savemat(content, {name: fields}, do_compression=compressed)
    return content.getvalue()


def cells(edges: list[np.ndarray]) -> np.ndarray:
    """Return a MATLAB cell column of sparse matrices."""
    filled = np.empty((len(edges), 1), object)
    for k, edge in enumerate(edges):
        filled[k, 0] = csc_matrix(edge)
    return filled


def column(values: list[int]) -> np.ndarray:
    return np.array(values, np.uint8).reshape(-1, 1)


def write_tar(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a tar with directory entries, as in the published archives; a .tgz is compressed."""
    folders: set[str] = set()
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as tar:
        for name, content in files.items():
            for parent in [str(p) for p in reversed(Path(name).parents)][1:]:
                if parent not in folders:
                    folders.add(parent)
                    entry = tarfile.TarInfo(parent)
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(entry)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
