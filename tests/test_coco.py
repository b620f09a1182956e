"""Drawn MS COCO 2014 in the original layout: the index, the masks and rejected inputs."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import encoded
from drawn_coco import CLASSES, DrawnCoco, draw_coco, file_name, polygon
from PIL import Image, ImageDraw

from plda.data.images import VOID, read_mask
from plda.data.source import Row, Source
from plda.download.packed import Packed
from plda.errors import InputError
from plda.sources.checks import Checker
from plda.sources.coco import paint, read_coco
from plda.sources.instances import Annotated, Instance, read_instances

CAT, DOG, PERSON = (CLASSES.index(name) for name in ("cat", "dog", "person"))


@pytest.fixture
def coco(tmp_path: Path) -> DrawnCoco:
    return draw_coco(tmp_path / "coco")


def read(coco: DrawnCoco) -> Source:
    return read_coco(Packed(coco.train), Packed(coco.val), Packed(coco.annotations), coco.counts)


def refusal(coco: DrawnCoco) -> str:
    """Return the message of the error that is raised before any row is read."""
    with pytest.raises(InputError) as caught:
        read(coco)
    return str(caught.value)


def mask_of(rows: list[Row], split: str, place: int) -> np.ndarray:
    mask = [row for row in rows if row.split == split][place].mask
    assert isinstance(mask, bytes)
    return read_mask(mask)


# Rows


def test_read_coco_gives_expected_rows(coco: DrawnCoco) -> None:
    source = read(coco)
    rows = list(source.rows)
    assert {split: [r.image for r in rows if r.split == split] for split in ("train", "val")} == coco.images
    assert [row.split for row in rows] == ["train"] * 8 + ["val"] * 4
    assert {row.image: row.tags for row in rows} == coco.tags
    assert rows[0].image == "COCO_train2014_000000000009.jpg"
    assert rows[0].origin == "instances_train2014.json: image 9"
    assert rows[8].origin == "instances_val2014.json: image 42"
    assert rows[0].tags == ("person", "dog")
    assert source.origin == str(coco.annotations)
    assert source.size == coco.train.stat().st_size + coco.val.stat().st_size
    with zipfile.ZipFile(coco.train) as archive:
        assert rows[0].content == archive.read("train2014/COCO_train2014_000000000009.jpg")


def test_read_coco_sorts_classes_by_id(coco: DrawnCoco) -> None:
    classes = read(coco).classes
    assert classes == CLASSES
    assert len(classes) == 81
    assert [classes[i] for i in (0, 1, 12, 80)] == ["background", "person", "stop sign", "toothbrush"]


def test_read_coco_rows_pass_checks(coco: DrawnCoco) -> None:
    source = read(coco)
    checker = Checker(source, long_side=None)
    entries = [checker.check(row) for row in source.rows]
    checker.finish()
    assert all(entries)


def test_read_coco_skips_images_without_instances(coco: DrawnCoco) -> None:
    rows = list(read(coco).rows)
    for split, number in (("train", 9 + 3 * 8), ("val", 42 + 3 * 4)):
        assert file_name(split, number) in zipfile.ZipFile(getattr(coco, split)).namelist()[-1]
        assert file_name(split, number) not in [row.image for row in rows]


def test_read_coco_tags_image_with_only_a_crowd(coco: DrawnCoco) -> None:
    table = coco.tables["train"]
    table["annotations"] = [a for a in table["annotations"] if a["image_id"] != 9 or a["iscrowd"]]
    coco.save()
    row = next(iter(read(coco).rows))
    assert (row.image, row.tags) == (file_name("train", 9), ("person",))


def test_read_coco_reads_rows_lazily(coco: DrawnCoco, monkeypatch) -> None:
    done: list[object] = []

    def noted(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda what: done.append(what) or call(what)

    train, val = Packed(coco.train), Packed(coco.val)
    for archive in (train, val):
        monkeypatch.setattr(archive, "read", noted(archive.read))
    monkeypatch.setattr("plda.sources.coco.paint", noted(paint))
    rows = iter(read_coco(train, val, Packed(coco.annotations), coco.counts).rows)
    assert done == []
    for count in (1, 2):
        next(rows)
        assert len(done) == 2 * count  # an image and a mask
    assert len(list(rows)) == 10
    assert len(done) == 2 * 12


def test_draw_coco_draws_requested_number_of_images(tmp_path: Path) -> None:
    coco = draw_coco(tmp_path, train=3, val=1)
    assert coco.counts == {"train": 3, "val": 1, "classes": 81}
    assert len(list(read(coco).rows)) == 4


@pytest.mark.parametrize(
    "below", [("", "", ""), ("train2014", "val2014", "annotations"), ("train2014", "", "")]
)
def test_read_coco_accepts_unpacked_folders(
    coco: DrawnCoco, tmp_path: Path, below: tuple[str, str, str]
) -> None:
    folder = coco.unpack(tmp_path / "unpacked")
    train, val, annotations = (Packed(folder / name) for name in below)
    source = read_coco(train, val, annotations, coco.counts)
    assert list(source.rows) == list(read(coco).rows)
    sizes = (file.stat().st_size for file in folder.rglob("*.jpg"))
    empty = [file_name("train", 9 + 3 * 8), file_name("val", 42 + 3 * 4)]
    assert source.size == sum(sizes) - sum(next(folder.rglob(name)).stat().st_size for name in empty)


# Masks


def test_read_coco_masks_have_expected_pixels(coco: DrawnCoco) -> None:
    rows = list(read(coco).rows)
    ids = mask_of(rows, "train", 0)
    assert ids.shape == (48, 64)
    for (x, y), expected in {
        (9, 20): 0,
        (10, 8): PERSON,
        (39, 39): PERSON,
        (20, 40): 0,
        (35, 25): DOG,  # smaller than the person, and earlier in the file
        (47, 25): DOG,  # an instance is in front of a crowd
        (47, 10): VOID,
        (59, 47): VOID,
        (60, 47): 0,
        (63, 0): 0,
    }.items():
        assert ids[y, x] == expected, (x, y)
    assert np.bincount(ids.ravel(), minlength=256)[[PERSON, DOG, VOID]].tolist() == [
        30 * 32 - 10 * 16,
        20 * 16,
        16 * 48 - 6 * 16,
    ]
    ids = mask_of(rows, "val", 1)
    assert [ids[20, x] for x in (2, 5, 12, 20, 32, 40, 62)] == [0, CAT, PERSON, CAT, 0, CAT, 0]


def test_paint_keeps_width_and_height_apart() -> None:
    tall = Annotated(1, "a.jpg", width=20, height=50)
    (outline,) = polygon("cat", [(2, 30), (8, 30), (8, 45), (2, 45)])["segmentation"]
    tall.instances.append(Instance(CAT, False, 90, [outline]))
    ids = paint(tall)
    assert ids.shape == (50, 20)
    assert np.array_equal(np.argwhere(ids), [(y, x) for y in range(30, 45) for x in range(2, 8)])


@pytest.mark.parametrize("first_is_smaller", [True, False, None])
@pytest.mark.parametrize("labels", [(3, 7), (7, 3)])
def test_paint_puts_smaller_instance_in_front(labels: tuple[int, int], first_is_smaller: bool | None) -> None:
    """By the `area` field, for any order and classes; with equal areas, the first instance."""
    image = Annotated(1, "a.jpg", 20, 20)
    areas = {True: (10.0, 11.0), False: (11.0, 10.0), None: (10.0, 10.0)}[first_is_smaller]
    for label, area in zip(labels, areas, strict=True):
        image.instances.append(
            Instance(label, False, area, polygon("dog", [(5, 5), (15, 5), (15, 15)])["segmentation"])
        )
    assert paint(image)[7, 12] == labels[first_is_smaller is False]


def test_paint_puts_instance_before_smaller_crowd() -> None:
    image = Annotated(1, "a.jpg", 20, 20)
    crowd = {"size": [20, 20], "counts": [0, 40, 360]}
    image.instances.append(Instance(3, True, 1.0, [crowd]))
    image.instances.append(
        Instance(7, False, 99.0, polygon("dog", [(0, 0), (9, 0), (9, 9), (0, 9)])["segmentation"])
    )
    ids = paint(image)
    assert (ids[5, 1], ids[15, 1], ids[15, 9]) == (7, VOID, 0)


def test_paint_agrees_with_pillow_except_near_outlines(coco: DrawnCoco) -> None:
    """Pillow's rasteriser may differ only near the outlines."""
    (_, images) = read_instances(Packed(coco.annotations), "annotations/instances_train2014.json")
    for image in images[2:8]:
        for instance in image.instances:
            ids = paint(Annotated(1, "", image.width, image.height, [instance])) > 0
            corners = np.reshape(np.array(instance.outline), (-1, 2))
            grown, shrunk = (corners + step * (corners - corners.mean(0)) for step in (0.15, -0.15))
            assert not (ids & ~filled(grown, ids.shape)).any()
            assert not (~ids & filled(shrunk, ids.shape)).any()


def filled(corners: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    image = Image.new("L", shape[::-1])
    ImageDraw.Draw(image).polygon(corners.ravel().tolist(), fill=1)
    return np.asarray(image) > 0


# Rejected inputs


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train", "instances_train2014.json: images with instances: found 8, expected 9"),
        ("val", "instances_val2014.json: images with instances: found 4, expected 5"),
        (
            "classes",
            "instances_train2014.json: field categories: classes with background: found 81, expected 82",
        ),
    ],
)
def test_read_coco_rejects_unexpected_counts(coco: DrawnCoco, name: str, words: str) -> None:
    coco.counts[name] += 1
    assert refusal(coco) == f"{coco.annotations}: {words}"


Change = Callable[[dict[str, Any]], Any]
RUNS = {"size": [48, 64], "counts": [48 * 64]}


def annotation(**fields: Any) -> Change:
    """Return a change that sets fields of the first annotation (image 9); None removes a field."""

    def change(table: dict[str, Any]) -> None:
        table["annotations"][0] |= fields
        for name in [name for name, value in fields.items() if value is None]:
            del table["annotations"][0][name]

    return change


def image(**fields: Any) -> Change:
    return lambda table: table["images"][-1].update(fields)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("images"), "field images: is missing"),
        (lambda t: t.pop("categories"), "field categories: is missing"),
        (lambda t: t.update(annotations={}), "field annotations: must be a list, got {}"),
        (lambda t: t["annotations"].insert(1, 7), "annotations[1]: field id: is missing"),
        (
            lambda t: t["annotations"].append(t["annotations"][0]),
            "annotation 900: field id: duplicate id",
        ),
        (lambda t: t["categories"][0].pop("name"), "category 90: field name: is missing"),
        (lambda t: t["images"].append(t["images"][-1]), "image 9: field id: duplicate id"),
        (image(width=None), "image 9: field width: is missing"),
        (image(width="64"), "image 9: field width: must be a whole number, got '64'"),
        (image(height=0), "image 9: field width, height: must be at least 1, got 64x0"),
        (image(file_name=None), "image 9: field file_name: is missing"),
        (annotation(id=None), "annotations[0]: field id: is missing"),
        (annotation(id="a"), "annotations[0]: field id: must be a whole number, got 'a'"),
        (annotation(category_id=None), "annotation 900: field category_id: is missing"),
        (annotation(category_id=12), "annotation 900: field category_id: 12 is not in the file"),
        (annotation(image_id=10), "annotation 900: field image_id: 10 is not in the file"),
        (annotation(area=None), "annotation 900: field area: is missing"),
        (annotation(area=[]), "annotation 900: field area: must be a number, got []"),
        (annotation(iscrowd=2), "annotation 900: field iscrowd: must be 0 or 1, got 2"),
        (annotation(segmentation=None), "annotation 900: field segmentation: is missing"),
        (annotation(segmentation=[]), "annotation 900: field segmentation: is empty"),
        (annotation(segmentation="x"), "annotation 900: field segmentation: must be a list, got 'x'"),
        (
            annotation(segmentation=[[1, 2, 3, 4]]),
            "annotation 900: field segmentation: a polygon has 4 numbers",
        ),
        (
            annotation(segmentation=[[0] * 8, [0] * 7]),
            "annotation 900: field segmentation: a polygon has 7 numbers",
        ),
        (annotation(segmentation=[[]]), "annotation 900: field segmentation: a polygon has 0 numbers"),
        (
            annotation(segmentation=[[0] * 5 + ["1"]]),
            "annotation 900: field segmentation: a polygon must be a list",
        ),
        (
            annotation(segmentation=[[0] * 5 + [10**400]]),
            "annotation 900: field segmentation: a polygon must be",
        ),
        (
            annotation(segmentation=[0] * 8),
            "annotation 900: field segmentation: a polygon must be a list of numbers",
        ),
        (
            annotation(segmentation=[[0] * 7 + [1e9]]),
            "annotation 900: field segmentation: a polygon is far outside",
        ),
        (
            annotation(segmentation=[[0] * 7 + [-200]]),
            "annotation 900: field segmentation: a polygon is far outside",
        ),
        (annotation(segmentation={}), "annotation 900: field segmentation: field counts: is missing"),
        (annotation(segmentation={"counts": [1]}), "field segmentation: field size: is missing"),
        (
            annotation(segmentation={"size": [48, 64], "counts": "b3"}),
            "field counts: must be a list, got 'b3'",
        ),
        (
            annotation(segmentation=RUNS | {"size": [64, 48]}),
            "field size: got [64, 48], but the image has [48, 64]",
        ),
        (annotation(segmentation=RUNS | {"counts": [3071]}), "field counts: sum is 3071, but the image has"),
        (
            annotation(segmentation=RUNS | {"counts": [-1, 3073]}),
            "field counts: must be whole numbers of at least 0",
        ),
        (
            annotation(segmentation=RUNS | {"counts": [3072.0]}),
            "field counts: must be whole numbers of at least 0",
        ),
        (annotation(area=float("nan")), "is not JSON: NaN is not a number"),
    ],
)
def test_read_coco_rejects_invalid_annotations(coco: DrawnCoco, change: Change, words: str) -> None:
    change(coco.tables["train"])
    coco.save()
    message = refusal(coco)
    assert message.startswith(f"{coco.annotations}: instances_train2014.json: ")
    assert words in message


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff{}", b"[" * 100_000, b"PK"],
    ids=["nothing", "begun", "no text", "nested", "an archive"],
)
def test_read_coco_rejects_invalid_json(coco: DrawnCoco, content: bytes) -> None:
    with zipfile.ZipFile(coco.annotations, "w") as archive:
        archive.writestr("instances_train2014.json", content)
    assert "instances_train2014.json: is not JSON" in refusal(coco)


def test_read_coco_rejects_json_list(coco: DrawnCoco) -> None:
    with zipfile.ZipFile(coco.annotations, "w") as archive:
        archive.writestr("instances_train2014.json", json.dumps([1]))
    assert refusal(coco) == f"{coco.annotations}: instances_train2014.json: field categories: is missing"


def test_read_coco_rejects_inconsistent_categories(coco: DrawnCoco) -> None:
    coco.tables["val"]["categories"][0]["name"] = "comb"
    coco.save()
    words = "instances_val2014.json: field categories: must be those of instances_train2014.json"
    assert refusal(coco) == f"{coco.annotations}: {words}"
    coco.tables["train"]["categories"][0]["name"] = "person"
    coco.tables["val"]["categories"][0]["name"] = "person"
    coco.save()
    assert "field categories: duplicate name" in refusal(coco)


def test_read_coco_names_missing_files(coco: DrawnCoco) -> None:
    repack(coco.train, {"train2014/COCO_train2014_000000000012.jpg": None})
    assert refusal(coco) == f"{coco.train}: holds no file COCO_train2014_000000000012.jpg"
    coco.annotations = coco.val
    assert refusal(coco) == f"{coco.val}: holds no file instances_train2014.json"


def test_read_coco_rejects_duplicate_file_names(coco: DrawnCoco, tmp_path: Path) -> None:
    coco.train = coco.unpack(tmp_path / "unpacked")
    name = "COCO_train2014_000000000009.jpg"
    (coco.train / "small").mkdir()
    shutil.copy(coco.train / "train2014" / name, coco.train / "small")
    assert refusal(coco) == f"{coco.train}: holds more than one {name}: small/{name}, train2014/{name}"


def test_checker_rejects_image_of_another_size(coco: DrawnCoco) -> None:
    other = encoded(Image.new("RGB", (64, 50)))
    repack(coco.train, {"train2014/COCO_train2014_000000000009.jpg": other})
    source = read(coco)
    checker = Checker(source, long_side=None)
    for row in source.rows:
        checker.check(row)
    with pytest.raises(InputError, match=r"image 9: field mask: .* its image, 64x50, got 64x48"):
        checker.finish()


def repack(path: Path, changes: dict[str, bytes | None]) -> None:
    """Rewrite an archive with changed files; None removes a file."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()} | changes
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            if content is not None:
                archive.writestr(name, content)
