"""A small drawn COCO 2014 in the layout of the original archives, with real categories and known masks."""

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from conftest import encoded
from PIL import Image, ImageDraw

# ids as in instances_train2014.json: 1 to 90 with gaps
NAMES = """1 person|2 bicycle|3 car|4 motorcycle|5 airplane|6 bus|7 train|8 truck|9 boat|10 traffic light
11 fire hydrant|13 stop sign|14 parking meter|15 bench|16 bird|17 cat|18 dog|19 horse|20 sheep|21 cow
22 elephant|23 bear|24 zebra|25 giraffe|27 backpack|28 umbrella|31 handbag|32 tie|33 suitcase|34 frisbee
35 skis|36 snowboard|37 sports ball|38 kite|39 baseball bat|40 baseball glove|41 skateboard|42 surfboard
43 tennis racket|44 bottle|46 wine glass|47 cup|48 fork|49 knife|50 spoon|51 bowl|52 banana|53 apple
54 sandwich|55 orange|56 broccoli|57 carrot|58 hot dog|59 pizza|60 donut|61 cake|62 chair|63 couch
64 potted plant|65 bed|67 dining table|70 toilet|72 tv|73 laptop|74 mouse|75 remote|76 keyboard|77 cell phone
78 microwave|79 oven|80 toaster|81 sink|82 refrigerator|84 book|85 clock|86 vase|87 scissors|88 teddy bear
89 hair drier|90 toothbrush"""
PAIRS = (pair.split(" ", 1) for pair in NAMES.replace("\n", "|").split("|"))
CATEGORIES = [(int(number), name) for number, name in PAIRS]
NUMBERS = {name: number for number, name in CATEGORIES}
CLASSES = ("background", *(name for _, name in CATEGORIES))
OCTAGON = np.array([(np.cos(turn), np.sin(turn)) for turn in np.arange(8) * np.pi / 4])
COLOURS = {"person": (220, 60, 50), "cat": (60, 80, 220), "dog": (240, 200, 40)}

Shape = dict[str, Any]  # fields of an annotation: class, outline, area, iscrowd


@dataclass
class DrawnCoco:
    """The three archives and the values expected when they are read.

    Attributes:
        train, val, annotations: paths of the archives.
        tables: instances JSON of "train" and "val"; call `save` after a change.
        images: file names of the images with instances, by split, in the order of their ids.
        tags: tags of each of these images, by file name.
        counts: counts to pass to `read_coco`.
    """

    train: Path
    val: Path
    annotations: Path
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: dict[str, list[str]] = field(default_factory=dict)
    tags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: {"classes": len(CLASSES)})

    def save(self) -> None:
        """Write the annotations archive."""
        with zipfile.ZipFile(self.annotations, "w", zipfile.ZIP_DEFLATED) as archive:
            for split, table in self.tables.items():
                archive.writestr(f"annotations/instances_{split}2014.json", json.dumps(table))
                archive.writestr(f"annotations/captions_{split}2014.json", json.dumps({"annotations": []}))

    def unpack(self, folder: Path) -> Path:
        """Extract the three archives into one folder, as users do."""
        for path in (self.train, self.val, self.annotations):
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)
        return folder


def draw_coco(folder: Path, train: int = 8, val: int = 4) -> DrawnCoco:
    """Write train2014.zip, val2014.zip and annotations_trainval2014.zip into `folder`.

    Args:
        folder: output folder; created if missing.
        train, val: number of images with instances; each split has one more image without. The first image
            shows `overlapping`, the second `in_two_parts`, the others one or two of person, cat and dog.
    """
    folder.mkdir(parents=True, exist_ok=True)
    coco = DrawnCoco(*(folder / f"{name}2014.zip" for name in ("train", "val", "annotations_trainval")))
    random = np.random.default_rng(0)
    for split, count, first, path in (("train", train, 9, coco.train), ("val", val, 42, coco.val)):
        coco.counts[split], coco.images[split] = count, []
        images, annotations = [], []
        with zipfile.ZipFile(path, "w") as archive:
            archive.mkdir(f"{split}2014")
            for place in range(count + 1):
                number, name = first + 3 * place, file_name(split, first + 3 * place)
                size = (64, 48) if place < 2 else (random.integers(8, 13) * 8, random.integers(6, 11) * 8)
                width, height = map(int, size)
                shapes = _shapes(place, width, height, random) if place < count else []
                picture = _picture(width, height, shapes, random)
                archive.writestr(f"{split}2014/{name}", encoded(picture, quality=95))
                images.append(
                    {"license": 5, "file_name": name, "height": height, "width": width, "id": number}
                )
                for shape in shapes:
                    others = {"image_id": number, "id": 100 * number + len(annotations), "bbox": [0, 0, 1, 1]}
                    annotations.append(shape | others)
                if shapes:
                    coco.images[split].append(name)
                    numbers = sorted({shape["category_id"] for shape in shapes})
                    coco.tags[name] = tuple(dict(CATEGORIES)[number] for number in numbers)
        coco.tables[split] = {
            "info": {"description": "COCO 2014 Dataset", "year": 2014},
            "images": images[::-1],  # not sorted, as in the originals
            "licenses": [{"url": "", "id": 5, "name": "Attribution-ShareAlike License"}],
            "annotations": annotations,
            "categories": [{"supercategory": "", "id": n, "name": name} for n, name in CATEGORIES[::-1]],
        }
    coco.save()
    return coco


def file_name(split: str, number: int) -> str:
    return f"COCO_{split}2014_{number:012}.jpg"


def overlapping() -> list[Shape]:
    """Return 64x48 shapes: a small dog in front of a person; crowd in columns 44 to 59, dog in 30 to 49."""
    dog = polygon("dog", [(30, 20), (50, 20), (50, 36), (30, 36)])
    person = polygon("person", [(10, 8), (40, 8), (40, 40), (10, 40)])
    runs = {"counts": [44 * 48, 16 * 48, 4 * 48], "size": [48, 64]}
    crowd = {"category_id": NUMBERS["person"], "iscrowd": 1, "area": 16 * 48, "segmentation": runs}
    return [dog, person, crowd]


def in_two_parts() -> list[Shape]:
    """Return 64x48 shapes: a two-part cat; a person, later in the file, in front of its left part."""
    cat = polygon("cat", [(4, 4), (28, 4), (28, 44), (4, 44)], [(36, 4), (60, 4), (60, 44), (36, 44)])
    return [cat, polygon("person", [(8, 10), (16, 10), (16, 30), (8, 30)])]


def polygon(name: str, *outlines: list[tuple[float, float]]) -> Shape:
    """Return an instance of class `name`; each outline is a list of corners (x, y) in pixels."""
    area = sum(_area(np.array(outline)) for outline in outlines)
    parts = [[float(value) for corner in outline for value in corner] for outline in outlines]
    return {"category_id": NUMBERS[name], "iscrowd": 0, "area": area, "segmentation": parts}


def _area(corners: np.ndarray) -> float:
    (x, y), (to_x, to_y) = corners.T, np.roll(corners, 1, axis=0).T
    return float(abs(x @ to_y - y @ to_x) / 2)


def _shapes(place: int, width: int, height: int, random: np.random.Generator) -> list[Shape]:
    if place < 2:
        return (overlapping, in_two_parts)[place]()
    shapes = []
    for name in random.permutation(list(COLOURS))[: random.integers(1, 3)].tolist():
        middle = random.uniform(0.3, 0.7, 2) * (width, height)
        corners = middle + random.uniform(0.15, 0.28) * height * OCTAGON
        shapes.append(polygon(name, corners.round(2).tolist()))
    return shapes


def _picture(width: int, height: int, shapes: list[Shape], random: np.random.Generator) -> Image.Image:
    """Draw the shapes in their class colours on grey noise, the largest first; crowds are not drawn."""
    image = Image.fromarray(random.integers(90, 160, (height, width, 1), np.uint8).repeat(3, axis=2))
    pen = ImageDraw.Draw(image)
    for shape in sorted(shapes, key=lambda shape: -shape["area"]):
        for outline in shape["segmentation"] if not shape["iscrowd"] else []:
            pen.polygon(outline, fill=COLOURS[dict(CATEGORIES)[shape["category_id"]]])
    return image
