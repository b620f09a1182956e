"""The same labelled photos in every kind that `plda tags` reads.

Photos are 64 x 48, `p00.jpg`, `p01.jpg`, ... Every fourth one is in split val, where the kind has splits.
"""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
from conftest import encoded, photo
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 64, 48
BOXES = {"cat": (4, 6, 24, 40), "dog": (32, 10, 60, 30)}  # left, top, right, bottom
TAGS = (("cat",), ("dog",), ("cat", "dog"), (), ("dog",), ("cat",))


def tags_of(number: int) -> tuple[str, ...]:
    return TAGS[number % len(TAGS)]


def split_of(number: int) -> str:
    return "val" if number % 4 == 3 else "train"


def ids_of(number: int) -> np.ndarray:
    """Return the true mask: cat 1, dog 2."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    for name in tags_of(number):
        left, top, right, bottom = BOXES[name]
        ids[top:bottom, left:right] = 1 + list(BOXES).index(name)
    return ids


def corners(name: str) -> list[tuple[int, int]]:
    """Return a box as a polygon of five corners."""
    left, top, right, bottom = BOXES[name]
    return [(left, top), (right, top), (right, bottom), (left, bottom), (left, top + 2)]


def write_photo(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = photo(WIDTH, HEIGHT, number)
    for name in tags_of(number):
        left, top, right, bottom = BOXES[name]
        ImageDraw.Draw(image).rectangle(
            (left, top, right - 1, bottom - 1), {"cat": "red", "dog": "blue"}[name]
        )
    path.write_bytes(encoded(image))


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def folders(home: Path, count: int) -> Path:
    for i in range(count):
        write_photo(home / split_of(i) / (tags_of(i) or ("background",))[0] / f"p{i:02}.jpg", i)
    return home


def coco(home: Path, count: int) -> Path:
    ids = {"cat": 17, "dog": 18}
    for split in ("train", "val"):
        numbers = [i for i in range(count) if split_of(i) == split]
        for i in numbers:
            write_photo(home / "images" / split / f"p{i:02}.jpg", i)
        content = {
            "images": [
                {"id": i, "file_name": f"p{i:02}.jpg", "width": WIDTH, "height": HEIGHT} for i in numbers
            ],
            "categories": [{"id": value, "name": name} for name, value in ids.items()],
            "annotations": [
                {
                    "id": 10 * i + value,
                    "image_id": i,
                    "category_id": value,
                    "iscrowd": 0,
                    "segmentation": [[part for corner in corners(name) for part in corner]],
                }
                for i in numbers
                for name, value in ids.items()
                if name in tags_of(i)
            ],
        }
        write_text(home / "annotations" / f"instances_{split}2017.json", json.dumps(content))
    return home


def voc(home: Path, count: int) -> Path:
    palette = {"cat": 8, "dog": 12}
    for i in range(count):
        write_photo(home / f"JPEGImages/p{i:02}.jpg", i)
        objects = "".join(f"<object><name>{name}</name></object>" for name in tags_of(i))
        text = f"<annotation><filename>p{i:02}.jpg</filename>{objects}</annotation>"
        write_text(home / f"Annotations/p{i:02}.xml", text)
        ids = np.array([0, *palette.values()], np.uint8)[ids_of(i)]
        mask = home / f"SegmentationClass/p{i:02}.png"
        mask.parent.mkdir(exist_ok=True)
        mask.write_bytes(encoded(Image.fromarray(ids), "PNG"))
    for split in ("train", "val"):
        names = [f"p{i:02}\n" for i in range(count) if split_of(i) == split]
        write_text(home / f"ImageSets/Main/{split}.txt", "".join(names))
    return home


def yolo(home: Path, count: int) -> Path:
    write_text(
        home / "data.yaml", "train: ../train/images\nval: ../valid/images\nnames:\n  0: cat\n  1: dog\n"
    )
    for i in range(count):
        folder = home / {"train": "train", "val": "valid"}[split_of(i)]
        write_photo(folder / f"images/p{i:02}.jpg", i)
        lines = [
            " ".join([str(list(BOXES).index(name)), *(f"{x / WIDTH} {y / HEIGHT}" for x, y in corners(name))])
            for name in tags_of(i)
        ]
        if lines:
            write_text(folder / f"labels/p{i:02}.txt", "\n".join(lines))
    return home


def labelstudio(home: Path, count: int) -> Path:
    tasks = []
    for i in range(count):
        write_photo(home / f"photos/p{i:02}.jpg", i)
        results = [
            {
                "type": "polygonlabels",
                "value": {
                    "points": [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in corners(name)],
                    "polygonlabels": [name],
                },
            }
            for name in tags_of(i)
        ]
        task = {"id": i, "annotations": [{"result": results, "was_cancelled": False}]}
        tasks.append({**task, "data": {"image": f"/data/upload/3/{i:08x}-p{i:02}.jpg"}})
    return write_text(home / "project-1.json", json.dumps(tasks))


def cvat(home: Path, count: int) -> Path:
    images = []
    for i in range(count):
        write_photo(home / f"images/p{i:02}.jpg", i)
        objects = ""
        if "cat" in tags_of(i):
            points = ";".join(f"{x}.00,{y}.00" for x, y in corners("cat"))
            objects += f"<polygon label='cat' points='{points}' z_order='0'/><tag label='cat'/>"
        if "dog" in tags_of(i):
            left, top, right, bottom = BOXES["dog"]
            box = f"left='{left}' top='{top}' width='{right - left}' height='{bottom - top}'"
            objects += f"<mask label='dog' rle='0, {(right - left) * (bottom - top)}' {box}/>"
        size = f"width='{WIDTH}' height='{HEIGHT}'"
        images.append(f"<image id='{i}' name={quoteattr(f'p{i:02}.jpg')} {size}>{objects}</image>")
    labels = "".join(f"<label><name>{name}</name></label>" for name in BOXES)
    meta = f"<version>1.1</version><meta><task><labels>{labels}</labels></task></meta>"
    return write_text(home / "annotations.xml", f"<annotations>{meta}{''.join(images)}</annotations>")


def table(home: Path, count: int) -> Path:
    lines: list[Sequence[object]] = [("Filename", "cat", "dog", "width")]
    for i in range(count):
        write_photo(home / f"p{i:02}.jpg", i)
        lines.append((f"p{i:02}.jpg", *(int(name in tags_of(i)) for name in BOXES), WIDTH))
    return write_text(home / "labels.csv", "\r\n".join(",".join(map(str, line)) for line in lines))


def huggingface(home: Path, count: int) -> Path:
    for split, folder in (("train", "train"), ("val", "validation")):
        numbers = [i for i in range(count) if split_of(i) == split]
        for i in numbers:
            write_photo(home / folder / f"p{i:02}.jpg", i)
        lines = [json.dumps({"file_name": f"p{i:02}.jpg", "labels": tags_of(i)}) for i in numbers]
        write_text(home / folder / "metadata.jsonl", "\n".join(lines))
    return home


WRITERS: dict[str, Callable[[Path, int], Path]] = {
    "folders": folders,
    "coco": coco,
    "voc": voc,
    "yolo": yolo,
    "labelstudio": labelstudio,
    "cvat": cvat,
    "csv": table,
    "huggingface": huggingface,
}
WITH_SPLITS = ("folders", "coco", "voc", "yolo", "huggingface")
WITH_MASKS = ("coco", "voc", "yolo", "labelstudio", "cvat")


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    """Return the rows of tags.csv by the photo's file name without extension."""
    with (folder / "tags.csv").open(newline="", encoding="utf-8") as stream:
        return {Path(row["image"]).stem: row for row in csv.DictReader(stream)}
