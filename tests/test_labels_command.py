"""`plda labels`: masks as data sets of other programs, read back by code that is not the writer's."""

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias
from xml.etree import ElementTree as XML

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from scipy import ndimage

from plda.__main__ import main
from plda.data.images import VOID, encode_mask, read_mask
from plda.writers import brush, write
from plda.writers.pieces import Piece, find_pieces
from plda.writers.polygons import CENTRED, DRAWN, outline

CLASSES = ("background", "cat", "dog's <bed>", "Vögel")
NAMES = ("a", "sub folder/ü b", "sub folder/deep/c.jpg")
FORMATS = ("coco", "yolo", "voc", "labelstudio", "cvat", "datumaro")
HEIGHT, WIDTH = 70, 90
Objects: TypeAlias = list[tuple[int, np.ndarray]]


def drawn(number: int) -> np.ndarray:
    """Return ids with holes, touching classes, a bridge of one pixel, a diagonal, pieces at borders, VOID."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[5:45, 5:45] = 1
    ids[12:20, 10:20] = 0  # holes
    ids[25:31, 12:18] = VOID
    ids[26:29, 30:33] = 2  # a class in a hole
    ids[15:16, 30:34] = 0
    ids[10:40, 45:60] = 2  # touches class 1
    ids[25, 60:70] = 2  # a bridge
    ids[20:30, 70:80] = 2
    ids[50:, :20] = 3  # at a corner
    ids[:8, 60:] = 3
    for i in range(12):
        ids[50 + i, 30 + i] = 1  # connected at corners
    ids[55:60, 60:75] = 1
    ids[60:65, 75:85] = 1  # touches the last at a corner
    ids[68, 50:52] = 1  # small
    if number:
        field = ndimage.gaussian_filter(np.random.default_rng(number).normal(size=ids.shape), 2)
        ids = np.where(field > 0.08, ids + (ids == 0), np.where(field < -0.15, 0, ids)).astype(np.uint8)
    return ids


def expected(ids: np.ndarray, least: float) -> Objects:
    """Return class and pixels of each connected piece, by flooding."""
    found = []
    for label in sorted(set(ids.ravel().tolist()) - {0, VOID}):
        numbers, count = ndimage.label(ids == label, np.ones((3, 3)))
        pieces = [numbers == number for number in range(1, count + 1)]
        found += [(label, piece) for piece in pieces if piece.sum() >= least]
    return found


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Return a folder as `plda predict` writes it, with photos beside it."""
    out = tmp_path / "labelled"
    rows = []
    for number, name in enumerate(NAMES):
        for path in (out / f"masks/{name}.png", tmp_path / f"photos/{name}.jpg"):
            path.parent.mkdir(parents=True, exist_ok=True)
        (out / f"masks/{name}.png").write_bytes(encode_mask(drawn(number)))
        photo = tmp_path / "photos" / (name if name.endswith(".jpg") else f"{name}.jpg")
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(photo)
        rows.append((f"masks/{name}.png", 50 + number))
    (out / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    with (out / "summary.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("mask", "expected_iou"), *rows])
    return out


def labels(made: Path, format: str, *more: str) -> Path:
    out = made.parent / "out" / "-".join([format, *more]).replace("/", "")
    photos = ["--photos", str(made.parent / "photos")]
    assert main(["labels", str(made), "--format", format, "--out", str(out), *photos, *more]) == 0
    return out


def filled(points: Iterable[Any], width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    runs = coco_mask.frPyObjects([[float(each) for each in points]], height, width)
    return coco_mask.decode(runs)[:, :, 0] > 0


def from_coco(out: Path) -> list[Objects]:
    coco = COCO(out / "annotations.json")
    names = {each["id"]: CLASSES.index(each["name"]) for each in coco.dataset["categories"]}
    assert [each["file_name"] for each in coco.imgs.values()] == [
        "a.jpg", "sub folder/deep/c.jpg", "sub folder/ü b.jpg",
    ]  # fmt: skip
    found = []
    for number in coco.imgs:
        each = coco.loadAnns(coco.getAnnIds(number))
        for one in each:
            assert one["area"] == pytest.approx(int(coco_mask.area(coco.annToRLE(one))), rel=0.02)
        found.append([(names[one["category_id"]], coco.annToMask(one) > 0) for one in each])
    return found


def from_yolo(out: Path) -> list[Objects]:
    about = yaml.safe_load((out / "data.yaml").read_text())
    assert about["train"] == about["val"] == "images"
    found = []
    for name in sorted(NAMES):
        assert (out / f"images/{name}.jpg").is_file()
        objects = []
        for line in (out / f"labels/{name}.txt").read_text().splitlines():
            label, *numbers = line.split()
            points = np.array(numbers, float).reshape(-1, 2) * (WIDTH, HEIGHT)
            for corners in (points.astype(int), points.round().astype(int)):
                image = Image.new("1", (WIDTH, HEIGHT))
                ImageDraw.Draw(image).polygon([tuple(each) for each in corners.tolist()], 1, 1)
                pixels = np.asarray(image)
            objects.append((CLASSES.index(about["names"][int(label)]), pixels))
        found.append(objects)
    return found


def from_voc(out: Path) -> list[Objects]:
    found = []
    for name in (out / "ImageSets/Segmentation/train.txt").read_text().splitlines():
        assert (out / f"JPEGImages/{name}.jpg").is_file()
        ids = np.asarray(Image.open(out / f"SegmentationClass/{name}.png"))
        objects = expected(ids, 0)
        root = XML.parse(out / f"Annotations/{name}.xml")
        boxes = [
            [each.findtext("name"), *(int(side.text or 0) for side in each.find("bndbox") or ())]
            for each in root.iter("object")
        ]
        for (label, pixels), box in zip(objects, boxes, strict=True):
            rows, columns = np.nonzero(pixels)
            sides = [columns.min() + 1, rows.min() + 1, columns.max() + 1, rows.max() + 1]
            assert box == [CLASSES[label], *sides]
        found.append(objects)
    return found


def from_labelstudio(out: Path) -> list[Objects]:
    config = XML.parse(out / "label_config.xml")
    assert [each.get("value") for each in config.iter("Label")] == list(CLASSES[1:])
    tasks = json.loads((out / "tasks.json").read_text())
    assert tasks[2]["data"]["image"].endswith("?d=photos/sub%20folder/%C3%BC%20b.jpg")
    return [
        [
            (CLASSES.index(r["value"]["brushlabels"][0]), brush.decode(r["value"]["rle"], HEIGHT, WIDTH))
            for r in task["predictions"][0]["result"]
        ]
        for task in tasks
    ]


def from_cvat(out: Path) -> list[Objects]:
    def pixels(shape: XML.Element) -> np.ndarray:
        if shape.tag == "polygon":
            return filled(shape.attrib["points"].replace(";", ",").split(","))
        left, top, width, height = (int(shape.attrib[key]) for key in ("left", "top", "width", "height"))
        values: list[bool] = []
        for i, length in enumerate(shape.attrib["rle"].split(",")):
            values += [i % 2 == 1] * int(length)
        return np.pad(
            np.array(values).reshape(height, width),
            ((top, HEIGHT - top - height), (left, WIDTH - left - width)),
        )

    root = XML.parse(out / "annotations.xml").getroot()
    assert [each.findtext("name") for each in root.iter("label")] == list(CLASSES[1:])
    return [
        [(CLASSES.index(shape.attrib["label"]), pixels(shape)) for shape in image]
        for image in root.iter("image")
    ]


def from_datumaro(out: Path) -> list[Objects]:
    content = json.loads((out / "annotations/default.json").read_text())
    names = [each["name"] for each in content["categories"]["label"]["labels"]]
    assert all((out / "images/default" / item["image"]["path"]).is_file() for item in content["items"])
    return [
        [
            (
                CLASSES.index(names[each["label_id"]]),
                coco_mask.decode(each["rle"]) > 0 if each["type"] == "mask" else filled(each["points"]),
            )
            for each in item["annotations"]
        ]
        for item in content["items"]
    ]


READERS: dict[str, Callable[[Path], list[Objects]]] = {
    name.removeprefix("from_"): function
    for name, function in list(globals().items())
    if name.startswith("from_")
}


@pytest.mark.parametrize(
    ("format", "more"),
    [(name, ()) for name in FORMATS] + [(name, ("--rle",)) for name in ("coco", "cvat", "datumaro")],
)
def test_every_object_is_read_back(made: Path, format: str, more: tuple[str, ...], capsys) -> None:
    out = labels(made, format, "--min-area", "4", *more)
    found = READERS[format](out)
    least = 0.98 if format in ("coco", "yolo", "cvat", "datumaro") and not more else 1.0
    count = 0
    for name, objects in zip(sorted(NAMES), found, strict=True):
        want = expected(drawn(NAMES.index(name)), 4)
        count += len(want)
        for (label, pixels), (own, mask) in zip(objects, want, strict=True):
            assert label == own
            assert (pixels & mask).sum() / (pixels | mask).sum() >= least
    assert f"objects {count}" in " ".join(capsys.readouterr().out.split())


def test_first_drawing_has_what_it_says() -> None:
    pieces = expected(drawn(0), 0)
    assert [(label, int(pixels.sum())) for label, pixels in pieces if label == 2] == [(2, 560), (2, 9)]
    assert sorted(int(pixels.sum()) for label, pixels in pieces if label == 1) == [2, 12, 125, 1471]


@pytest.mark.parametrize(("area", "count"), [("0", 8), ("3", 7), ("0.002", 5), ("100", 5), ("0.9", 0)])
def test_min_area_is_pixels_or_a_share(tmp_path: Path, area: str, count: int) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/a.png").write_bytes(encode_mask(drawn(0)))
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    arguments = ["--format", "coco", "--out", str(tmp_path / "out"), "--min-area", area]
    assert main(["labels", str(tmp_path / "masks"), *arguments]) == 0
    content = json.loads((tmp_path / "out/annotations.json").read_text())
    assert len(content["annotations"]) == count
    assert "score" not in json.dumps(content)


def test_voc_mask_has_void_where_pieces_are_left_out(made: Path) -> None:
    out = labels(made, "voc", "--min-area", "3")
    ids, before = read_mask((out / "SegmentationClass/a.png").read_bytes()), drawn(0)
    assert {(68, 50), (68, 51)} == set(zip(*np.nonzero(ids != before), strict=True))
    assert (ids[68, 50:52] == VOID).all()
    assert (out / "labelmap.txt").read_text().splitlines()[1:3] == [
        "background:24,24,28::",
        "cat:230,159,0::",
    ]


def test_scores_are_expected_iou(made: Path) -> None:
    coco = json.loads((labels(made, "coco") / "annotations.json").read_text())
    scores = {each["image_id"]: each["score"] for each in coco["annotations"]}
    assert scores == {1: 0.5, 2: 0.52, 3: 0.51}
    task = json.loads((labels(made, "labelstudio") / "tasks.json").read_text())[0]["predictions"][0]
    assert task["score"] == task["result"][0]["score"] == 0.5
    assert task["model_version"].startswith("plda ")
    item = json.loads((labels(made, "datumaro") / "annotations/default.json").read_text())["items"][0]
    assert item["annotations"][0]["attributes"] == {"score": 0.5}


def test_results_of_a_run_find_classes_and_estimates(tmp_path: Path) -> None:
    for folder in ("index_data/data_set", "predict_masks/masks/val"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "index_data/data_set/classes.txt").write_text("\n".join(CLASSES))
    (tmp_path / "predict_masks/masks/val/1.png").write_bytes(encode_mask(drawn(0)))
    (tmp_path / "predict_masks/estimates.csv").write_text("image,expected_iou\nimages/val/1.png,66.25\n")
    arguments = ["--format", "coco", "--out", str(tmp_path / "out")]
    assert main(["labels", str(tmp_path / "predict_masks/masks"), *arguments]) == 0
    content = json.loads((tmp_path / "out/annotations.json").read_text())
    assert content["annotations"][0]["score"] == 0.6625
    assert content["images"][0]["file_name"] == "val/1.jpg"


def test_mask_of_a_shrunk_photo_is_enlarged(made: Path) -> None:
    Image.new("RGB", (2 * WIDTH + 1, 2 * HEIGHT)).save(made.parent / "photos/a.jpg")
    image = XML.parse(labels(made, "cvat") / "annotations.xml").find("image")
    assert image is not None and image.attrib["width"] == str(2 * WIDTH + 1)


@pytest.mark.parametrize("kind", [CENTRED, DRAWN])
def test_outline_is_exact_without_tolerance(kind) -> None:
    rng = np.random.default_rng(0)
    for size in range(1, 14):
        ids = (rng.random((size, size)) < 0.6).astype(np.uint8)
        for piece in find_pieces(ids)[0]:
            polygon = outline(piece._replace(top=0, left=0), 0.0, kind)
            for fill in kind.fills:
                assert (fill(polygon, *piece.inside.shape) == piece.inside).mean() >= 0.98
            assert polygon.min() >= 0 and (polygon <= piece.inside.shape[::-1]).all()


def test_polygon_has_few_corners() -> None:
    row, column = np.ogrid[:200, :200]
    disc = (row - 100) ** 2 + (column - 100) ** 2 < 90**2
    assert len(outline(Piece(1, 0, 0, disc), 1.0)) < 50
    assert len(outline(Piece(1, 0, 0, np.ones((50, 80), bool)), 1.0)) == 4


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (300, 400)])
def test_brush_run_lengths(shape: tuple[int, int]) -> None:
    for share in (0, 0.02, 0.5, 1):
        pixels = np.random.default_rng(1).random(shape) < share
        assert (brush.decode(brush.encode(pixels), *shape) == pixels).all()


Spoil: TypeAlias = Callable[[Path], Any]
MASK, PHOTO, TABLE = "labelled/masks/a.png", "photos/a.jpg", "labelled/summary.csv"


def with_file(name: str, content: bytes) -> Spoil:
    return lambda folder: (folder / name).write_bytes(content)


def with_image(name: str) -> Spoil:
    return lambda folder: Image.new("RGB", (WIDTH, HEIGHT)).save(folder / name)


def without(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def untouched(_folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "more", "words"),
    [
        (
            with_file(MASK, encode_mask(drawn(0) + 1)),
            (),
            "a.png: id must be 0 to 3 (classes) or 255 (undecided), got 4",
        ),
        (with_image(MASK), (), "a.png: must hold one 8-bit class id per pixel"),
        (with_file(MASK, b"no"), (), "a.png: cannot be decoded"),
        (with_file(MASK, encode_mask(drawn(0)[:, :50])), (), "a.jpg, 90x70, got 50x70"),
        (without(PHOTO), (), "a.png: must have one photo"),
        (with_image("photos/a.png"), (), "a.jpg and "),
        (with_file(PHOTO, b"\xff\xd8no"), (), "a.jpg: cannot be decoded"),
        (without("labelled/classes.txt"), (), "add --classes FILE"),
        (with_file(TABLE, b"mask,expected_iou\n"), (), "a.png: must have a row in the table"),
        (with_file(TABLE, b"mask,expected_iou\na,x\n"), (), "summary.csv: must have a column"),
        (with_file(TABLE, b"mask\na\n"), (), "summary.csv: must have a column"),
        (with_file("labelled/masks/a\x1b.png", b""), (), "must be printable UTF-8"),
        (untouched, ("--rle",), "--rle: must be used with one of coco, cvat, datumaro, got yolo"),
        (untouched, ("--classes", "none.txt"), "none.txt: no such file"),
        (untouched, ("--scores", "none.csv"), "none.csv: no such file"),
    ],
)
def test_bad_input_leaves_nothing(
    made: Path, spoil: Spoil, more: tuple[str, ...], words: str, refused
) -> None:
    spoil(made.parent)
    photos = ["--photos", str(made.parent / "photos")]
    arguments = ["labels", str(made), "--format", "yolo", "--out", str(made.parent / "out"), *photos, *more]
    assert words in refused(main, arguments)
    assert sorted(path.name for path in made.parent.iterdir()) == ["labelled", "photos"]


def test_out_must_be_new_or_empty(made: Path, refused) -> None:
    file, full, empty = (made.parent / name for name in ("file", "full", "empty"))
    file.write_text("mine")
    full.mkdir()
    (full / "mine").touch()
    empty.mkdir()
    arguments = ["labels", str(made), "--format", "labelstudio", "--out"]
    assert "must be a new or empty folder, got a file" in refused(main, [*arguments, str(file)])
    assert "must be a new or empty folder, got files" in refused(main, [*arguments, str(full)])
    assert "cannot be written" in refused(main, [*arguments, str(file / "out")])
    assert main([*arguments, str(empty)]) == 0
    assert sorted(path.name for path in empty.iterdir()) == ["label_config.xml", "tasks.json"]
    none = ["labels", str(full), *arguments[2:], "new", "--classes", str(made / "classes.txt")]
    assert "must be a folder of masks" in refused(main, none)


def test_what_differs_from_its_mask_is_not_kept(made: Path, monkeypatch, refused) -> None:
    monkeypatch.setattr("plda.writers.labelstudio.encode", lambda pixels: brush.encode(np.roll(pixels, 2)))
    arguments = ["labels", str(made), "--format", "labelstudio", "--out", str(made.parent / "out")]
    assert "a.png: object 1: IoU must be at least 0.98, got 0." in refused(main, arguments)
    assert not (made.parent / "out").exists()
    assert set(write.WRITERS) == set(FORMATS)


def compare(found: dict[str, Objects], least: float) -> None:
    for name, objects in found.items():
        for label, mask in expected(drawn(NAMES.index(name)), 30):
            ious = [(mask & pixels).sum() / (mask | pixels).sum() for own, pixels in objects if own == label]
            assert max(ious) >= least, (name, label)


def test_label_studio_sdk_decodes_the_brush(made: Path) -> None:
    sdk = pytest.importorskip("label_studio_sdk.converter.brush")
    tasks = json.loads((labels(made, "labelstudio", "--min-area", "30") / "tasks.json").read_text())
    found = {}
    for name, task in zip(sorted(NAMES), tasks, strict=True):
        results = task["predictions"][0]["result"]
        found[name] = [
            (
                CLASSES.index(each["value"]["brushlabels"][0]),
                sdk.decode_rle(each["value"]["rle"]).reshape(HEIGHT, WIDTH, 4)[:, :, 3] > 0,
            )
            for each in results
        ]
    compare(found, 1)


@pytest.mark.parametrize("more", [(), ("--rle",)])
def test_datumaro_reads_its_format(made: Path, more: tuple[str, ...]) -> None:
    datumaro = pytest.importorskip("datumaro")
    read = datumaro.Dataset.import_from(str(labels(made, "datumaro", "--min-area", "30", *more)), "datumaro")
    found = {}
    for item in read:
        shapes = item.annotations
        pixels = [np.asarray(each.image) > 0 if more else filled(each.points) for each in shapes]
        found[item.id] = [(each.label + 1, mask) for each, mask in zip(shapes, pixels, strict=True)]
    assert sorted(found) == sorted(NAMES)
    compare(found, 0.98)


def test_supervision_reads_yolo(made: Path) -> None:
    supervision = pytest.importorskip("supervision")
    out = labels(made, "yolo", "--min-area", "30")
    read = supervision.DetectionDataset.from_yolo(
        str(out / "images"), str(out / "labels"), str(out / "data.yaml"), force_masks=True
    )
    found = {}
    for path, _, each in read:
        pairs = zip(each.class_id, each.mask, strict=True)
        found[Path(path).stem] = [(int(label) + 1, np.asarray(mask)) for label, mask in pairs]
    compare(found, 0.98)
