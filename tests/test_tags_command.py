"""`plda tags`: every kind of labels, bad ones, splits, names, links, and what the pipeline makes of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Photos, encoded
from labelled import (
    HEIGHT,
    WIDTH,
    WITH_MASKS,
    WITH_SPLITS,
    WRITERS,
    ids_of,
    rows_of,
    split_of,
    tags_of,
    write_photo,
    write_text,
)  # fmt: skip
from PIL import Image
from pycocotools import mask as rle
from test_engines import Tree

from plda.__main__ import main
from plda.data.images import read_mask
from plda.readers.choose import draw_val
from plda.readers.kinds import KINDS
from plda.readers.outlines import runs

COUNT = 12


def run(source: Path, out: Path, *flags: str) -> int:
    return main(["tags", str(source), "--out", str(out), *flags])


def test_every_kind_has_an_example() -> None:
    assert set(KINDS) == set(WRITERS)


@pytest.mark.parametrize("kind", WRITERS)
def test_tags_reads_kind(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = WRITERS[kind](tmp_path / "source", COUNT), tmp_path / "out"
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "source").rglob("*")}
    assert run(source, out) == 0
    assert f"kind: {kind}\n" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "source").rglob("*")} == before
    assert (out / "classes.txt").read_text() == "background\ncat\ndog\n"
    rows = rows_of(out)
    assert sorted(rows) == [f"p{i:02}" for i in range(COUNT)]
    for i in range(COUNT):
        row, tags = rows[f"p{i:02}"], tags_of(i)
        assert row["tags"] == ";".join(tags[:1] if kind == "folders" else tags)
        if kind in WITH_SPLITS:
            assert row["split"] == split_of(i)
        write_photo(tmp_path / "p.jpg", i)
        assert (out / row["image"]).read_bytes() == (tmp_path / "p.jpg").read_bytes()
        assert bool(row["mask"]) == (kind in WITH_MASKS)
        if row["mask"]:
            np.testing.assert_array_equal(read_mask((out / row["mask"]).read_bytes()), ids_of(i))
    assert {row["split"] for row in rows.values()} == {"train", "val"}


@pytest.mark.parametrize("kind", WRITERS)
def test_written_folder_is_accepted_by_index_data(kind: str, tmp_path: Path, capsys) -> None:
    photos = Photos(tmp_path / "photos")
    photos.folder = tmp_path / "out"
    assert run(WRITERS[kind](tmp_path / "source", COUNT), photos.folder) == 0
    assert photos.index(tmp_path / "indexed") == 0
    assert f"{COUNT} images, 2 classes" in capsys.readouterr().err


CAT = {"id": 1, "name": "cat"}
IMAGE = {"id": 1, "file_name": "p00.jpg", "width": WIDTH, "height": HEIGHT}
CVAT_IMAGE = (
    f"<annotations><image name='p00.jpg' width='{WIDTH}' height='{HEIGHT}'>{{}}</image></annotations>"
)
VOC = "<annotation><filename>p00.jpg</filename>{}</annotation>"


def coco_with(**changes: object) -> str:
    return json.dumps({"images": [IMAGE], "categories": [CAT], "annotations": [], **changes})


def annotated(**changes: object) -> str:
    return coco_with(annotations=[{"id": 1, "image_id": 1, "category_id": 1, **changes}])


def task(value: object, image: object = "p00.jpg") -> str:
    return json.dumps([{"data": {"image": image}, "annotations": [{"result": [{"value": value}]}]}])


BAD = [
    # kind, file, content, words of the message
    ("coco", "a.json", "", "line 1: must be JSON"),
    ("coco", "a.json", '{"images": [', "line 1: must be JSON"),
    ("coco", "a.json", "[" * 100_000, "must be JSON"),
    ("coco", "a.json", '{"images": NaN}', "NaN is not a number"),
    ("coco", "a.json", "[]", "must be a COCO JSON file"),
    ("coco", "a.json", coco_with(images={}), "images must be a list"),
    ("coco", "a.json", coco_with(images=[7]), "images[0] must be an object, got 7"),
    ("coco", "a.json", coco_with(images=[IMAGE, IMAGE]), "images[1]: id must be unique, got 1"),
    ("coco", "a.json", coco_with(images=[{**IMAGE, "id": 1.5}]), "images[0]: id must be a whole number"),
    ("coco", "a.json", coco_with(images=[{"id": 1}]), "file_name must be a string, got nothing"),
    ("coco", "a.json", coco_with(categories=[CAT, CAT]), "categories[1]: id must be unique"),
    ("coco", "a.json", coco_with(categories=[{"id": 1, "name": 3}]), "name must be a string, got 3"),
    ("coco", "a.json", annotated(image_id=7), "annotations[0]: image_id must be that of an image, got 7"),
    ("coco", "a.json", annotated(category_id=True), "category_id must be a whole number, got True"),
    ("coco", "a.json", annotated(segmentation=[[1, 2, 3, 4]]), "segmentation must have pairs"),
    ("coco", "a.json", annotated(segmentation=[[1, 2, 3, 4, 5, "a"]]), "must be a number, got 'a'"),
    ("coco", "a.json", annotated(segmentation=[[1, 2, 3, 4, 5, 1e999]]), "Infinity is not a number"),
    ("coco", "a.json", annotated(segmentation="x"), "segmentation must be a list"),
    ("coco", "a.json", annotated(segmentation={"size": [2, 2], "counts": [3]}), "add up to 4 pixels, got 3"),
    ("coco", "a.json", annotated(segmentation={"size": [2, 2], "counts": "00"}), "add up to 4 pixels"),
    ("coco", "a.json", annotated(segmentation={"size": [2, 2], "counts": "\xff"}), "must be run lengths"),
    ("coco", "a.json", annotated(segmentation={"size": [1e9, 2], "counts": []}), "must be a whole number"),
    ("coco", "a.json", annotated(segmentation={"size": [10**9, 9], "counts": []}), "size must be the height"),
    ("voc", "a.xml", "", "must be XML"),
    ("voc", "a.xml", "<annotation><object>", "must be XML"),
    ("voc", "a.xml", "<other/>", "root must be annotation, got other"),
    ("voc", "a.xml", VOC.format("<object/>"), "object[0]/name must be a class, got nothing"),
    ("voc", "a.xml", f"<!DOCTYPE a [<!ENTITY b 'c'>]>{VOC}", "must have no document type, got 'a'"),
    ("voc", "a.txt", "", "must be a folder with XML files"),
    ("yolo", "data.yaml", "", "content must be an object, got nothing"),
    ("yolo", "data.yaml", "a: [", "must be YAML"),
    ("yolo", "data.yaml", "train: .", "names must be a list or an object"),
    ("yolo", "data.yaml", "train: .\nnames: [1.5]", "names[0] must be a string, got 1.5"),
    ("yolo", "data.yaml", "train: .\nnames: {a: b}", "names[a] must be a whole number, got 'a'"),
    ("yolo", "data.yaml", "train: 3\nnames: [a]", "train must be a string, got 3"),
    ("yolo", "data.yaml", "train: /etc\nnames: [a]", "train must be a folder or a list of photos in"),
    ("yolo", "data.yaml", "train: ../..\nnames: [a]", "got 0 train (0 with a class)"),
    ("labelstudio", "a.json", "{}", "content must be a list, got {}"),
    ("labelstudio", "a.json", "[3]", "tasks[0] must be an object, got 3"),
    ("labelstudio", "a.json", task({"choices": ["cat"]}, 7), "data.image must be a string, got 7"),
    ("labelstudio", "a.json", task({"choices": [7]}), "label must be a string, got 7"),
    ("labelstudio", "a.json", task({"choices": "cat"}), "choices must be a list, got 'cat'"),
    ("labelstudio", "a.json", task([]), "result[0]: value must be an object, got []"),
    ("labelstudio", "a.json", task({"polygonlabels": ["cat"]}), "points must be a list, got nothing"),
    ("labelstudio", "a.json", task({"polygonlabels": ["cat"], "points": [[0, 1]]}), "at least 3"),
    ("labelstudio", "a.json", task({"polygonlabels": ["cat"], "points": [0, 1]}), "points must be a list"),
    ("labelstudio", "a.json", '[{"data": {}, "annotations": 3}]', "data.image must be a string"),
    ("cvat", "annotations.xml", "<annotation/>", "must be `CVAT for images 1.1`"),
    ("cvat", "annotations.xml", "<annotations><track/></annotations>", "got tracks of a video"),
    (
        "cvat",
        "annotations.xml",
        "<annotations><image/></annotations>",
        "image[0]: name must be text",
    ),
    (
        "cvat",
        "annotations.xml",
        "<annotations><image name='a' width='x'/></annotations>",
        "width must be a number",
    ),
    (
        "cvat",
        "annotations.xml",
        CVAT_IMAGE.format("<box/>"),
        "box: label must be text, got nothing",
    ),
    ("cvat", "annotations.xml", CVAT_IMAGE.format("<polygon label='a' points='1,2;3'/>"), "must have pairs"),
    (
        "cvat",
        "annotations.xml",
        CVAT_IMAGE.format("<polygon label='a' points='1,2;3,4;nan,1'/>"),
        "must be a number",
    ),
    (
        "cvat",
        "annotations.xml",
        CVAT_IMAGE.format("<mask label='a' rle='4' left='63' top='0' width='2' height='2'/>"),
        "must be a box inside the photo, 64x48, got [63, 0, 2, 2]",
    ),
    (
        "cvat",
        "annotations.xml",
        CVAT_IMAGE.format("<mask label='a' rle='3' left='0' top='0' width='2' height='2'/>"),
        "must add up to 4 pixels, got 3",
    ),
    ("csv", "a.csv", "", "is empty; its first line"),
    ("csv", "a.csv", "cat,dog\n1,0\n", "must have a column for the photo"),
    ("csv", "a.csv", "image,cat\np00.jpg,1\np00.jpg,2\n", "line 3: column cat must be 0 or 1"),
    ("csv", "a.csv", "image,cat\np00.jpg,nan\np00.jpg,1\n", "line 2: column cat must be 0 or 1"),
    ("csv", "a.csv", "image,cat,split\np00.jpg,1,other\n", "column split must be train, val or test"),
    ("csv", "a.csv", 'image,cat\n"p00.jpg,1\n', "line 2: cannot be split into fields"),
    ("csv", "a.csv", "image,cat\np00.jpg,1\n", "got 0 train (0 with a class), 1 val"),
    ("huggingface", "metadata.jsonl", "{", "line 1: must be JSON"),
    ("huggingface", "metadata.jsonl", "[]", "line 1 must be an object, got []"),
    ("huggingface", "metadata.jsonl", '{"file_name": 1}', "file_name must be a string, got 1"),
    ("huggingface", "metadata.jsonl", '{"file_name": "p00.jpg"}', "must have a field with classes"),
    ("huggingface", "metadata.jsonl", '{"file_name": "p00.jpg", "label": 1.5}', "must be a class"),
    ("huggingface", "metadata.jsonl", '{"file_name": "p00.jpg", "label": [true]}', "must be a class"),
    ("huggingface", "metadata.csv", "file,label\n", "must name the columns file_name"),
    ("folders", "a/b.txt", "", "got 0 train (0 with a class)"),
]


@pytest.mark.parametrize(("kind", "file", "content", "words"), BAD)
def test_tags_rejects_bad_labels(
    kind: str, file: str, content: str, words: str, tmp_path: Path, refused
) -> None:
    source, out = tmp_path / "source", tmp_path / "new" / "out"
    write_text(source / file, content)
    write_photo(source / ("photos/p00.jpg" if kind != "folders" else "p00.jpg"), 0)
    for given in (source,) if kind in ("voc", "folders") else (source, source / file):
        said = refused(run, given, out, "--kind", kind)
        assert words in said
        assert str(source) in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize(
    ("line", "words"),
    {
        "0 0.5 0.5 0.1": "must have pairs of numbers",
        "a 0.5 0.5 0.1 0.1": "line 2: must be a number, got 'a'",
        "0.5 0.5 0.5 0.1 0.1": "class must be a whole number, got 0.5",
        "-1 0.5 0.5 0.1 0.1": "class must be a whole number, got -1",
        "0 0.5 0.5 0.1 nan": "must be a number, got 'nan'",
        "0 32 24 10 10": "from 0 to 1, got 32",
        "0": "must have pairs of numbers",
    }.items(),
)
def test_tags_rejects_bad_line_of_yolo(line: str, words: str, tmp_path: Path, refused) -> None:
    source = WRITERS["yolo"](tmp_path / "source", COUNT)
    file = write_text(source / "train/labels/p00.txt", f"0 0.5 0.5 0.1 0.1\n{line}\n")
    said = refused(run, source, tmp_path / "out")
    assert words in said and f"{file}: line 2" in said
    assert not (tmp_path / "out").exists()


def test_draw_val_takes_share_of_every_class_seeded() -> None:
    tags = {f"{i:03}": tags_of(i) for i in range(120)} | {"rare": ("owl",), "other": ("?",)}
    tags |= {f"owl{i}": ("owl", "cat") for i in range(9)}
    val = draw_val(tags, 0.2, 0)
    for name in ("cat", "dog", "owl"):
        members = [photo for photo in tags if name in tags[photo]]
        assert abs(len(val.intersection(members)) - 0.2 * len(members)) <= 4
    assert len([photo for photo in val if not tags[photo]]) == 4
    assert len([photo for photo in val if "owl" in tags[photo]]) == 2
    assert "other" not in val
    assert draw_val(dict(reversed(tags.items())), 0.2, 0) == val
    assert draw_val(tags, 0.2, 1) != val
    assert len(draw_val({"a": ("cat",), "b": ("cat",)}, 0.1, 0)) == 1


def test_same_seed_writes_same_folder(tmp_path: Path) -> None:
    source = WRITERS["csv"](tmp_path / "source", 30)
    for name, seed in (("a", "0"), ("b", "0"), ("c", "5")):
        assert run(source, tmp_path / name, "--seed", seed, "--val", "0.3") == 0
    tables = [(tmp_path / name / "tags.csv").read_text() for name in "abc"]
    assert tables[0] == tables[1] != tables[2]
    assert sum(row["split"] == "val" for row in rows_of(tmp_path / "a").values()) in range(8, 11)


def test_link_makes_hard_links(tmp_path: Path) -> None:
    source = WRITERS["folders"](tmp_path / "source", COUNT)
    assert run(source, tmp_path / "out", "--link") == 0
    assert (tmp_path / "out/images/p00.jpg").samefile(source / "train/cat/p00.jpg")


def test_link_makes_symbolic_links_where_hard_ones_fail(tmp_path: Path, monkeypatch) -> None:
    def fails(*_: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr("os.link", fails)
    monkeypatch.chdir(tmp_path)
    WRITERS["folders"](tmp_path / "source", COUNT)
    assert run(Path("source"), Path("out"), "--link") == 0
    assert (tmp_path / "out/images/p00.jpg").is_symlink()
    assert (tmp_path / "out/images/p00.jpg").read_bytes()


def test_masks_can_be_left_out(tmp_path: Path) -> None:
    assert run(WRITERS["coco"](tmp_path / "source", COUNT), tmp_path / "out", "--no-masks") == 0
    assert not any(row["mask"] for row in rows_of(tmp_path / "out").values())
    assert not (tmp_path / "out/masks").exists()


def test_classes_are_kept_in_order_and_others_dropped(tmp_path: Path) -> None:
    source = WRITERS["coco"](tmp_path / "source", COUNT)
    assert run(source, tmp_path / "a", "--classes", "dog, cat") == 0
    assert (tmp_path / "a/classes.txt").read_text() == "background\ndog\ncat\n"
    assert run(source, tmp_path / "b", "--exclude", "cat") == 0
    assert (tmp_path / "b/classes.txt").read_text() == "background\ndog\n"
    for i in range(COUNT):
        row = rows_of(tmp_path / "b")[f"p{i:02}"]
        assert row["tags"] == ("dog" if "dog" in tags_of(i) else "")
        mask = read_mask((tmp_path / "b" / row["mask"]).read_bytes())
        np.testing.assert_array_equal(mask, ids_of(i) // 2)


def photos_in(folder: Path, *names: str) -> None:
    """Write a different photo under each name."""
    for i, name in enumerate(names):
        write_photo(folder / name, i)


def tags_by_name(out: Path) -> dict[str, str]:
    return {name: row["tags"] for name, row in rows_of(out).items()}


def test_equal_file_names_keep_their_folder(tmp_path: Path) -> None:
    names = ("cat/1.jpg", "dog/1.jpg", "dog/2.jpg", "dog/sub/2.png", "cat/3.jpg", "cat/3.jpeg", "cat/é.jpg")
    photos_in(tmp_path / "source", *names)
    assert run(tmp_path / "source", tmp_path / "out") == 0
    written = sorted(
        p.relative_to(tmp_path / "out/images").as_posix() for p in (tmp_path / "out").rglob("*.j*")
    )
    assert written == ["cat/1.jpg", "cat/3.jpeg", "cat/3_2.jpg", "dog/1.jpg", "dog/2.jpg", "é.jpg"]
    assert (tmp_path / "out/images/dog/sub/2.png").exists()


def test_bad_photos_are_left_out_and_named(tmp_path: Path, capsys) -> None:
    photos_in(tmp_path / "source", "cat/1.jpg", "cat/2.jpg", "dog/3.jpg", "dog/4.jpg", "dog/5.jpg", "6.jpg")
    content = (tmp_path / "source/cat/1.jpg").read_bytes()
    (tmp_path / "source/dog/copy.JPG").write_bytes(content)
    (tmp_path / "source/dog/half.jpg").write_bytes(content[:300])
    (tmp_path / "source/dog/empty.png").write_bytes(b"")
    (tmp_path / "source/dog/.hidden.jpg").write_bytes(b"")
    (tmp_path / "source/dog/notes.txt").write_text("")
    assert run(tmp_path / "source", tmp_path / "out") == 0
    assert tags_by_name(tmp_path / "out") == {"1": "cat;dog", "2": "cat", "3": "dog", "4": "dog", "5": "dog"}
    printed = capsys.readouterr().out
    for words in (
        "not readable as an image: 2: dog/empty.png",
        "copy of another photo",
        "class folder: 1: 6.jpg",
    ):
        assert words in printed
    assert "hidden" not in printed


def test_folders_of_background_and_unlabelled_photos(tmp_path: Path) -> None:
    photos_in(tmp_path / "source", "_Background_/1.jpg", "cat/2.jpg", "cat/3.jpg", "unlabelled/4.jpg")
    assert run(tmp_path / "source", tmp_path / "out") == 0
    assert tags_by_name(tmp_path / "out") == {"1": "", "2": "cat", "3": "cat", "4": "?"}
    assert (tmp_path / "out/classes.txt").read_text() == "background\ncat\n"


def test_missing_val_split_is_drawn_and_test_photos_need_no_class(tmp_path: Path) -> None:
    photos_in(tmp_path / "source", *(f"Train/cat/{i}.jpg" for i in range(10)), "test/x.jpg")
    assert run(tmp_path / "source", tmp_path / "out") == 0
    rows = rows_of(tmp_path / "out")
    assert (rows["x"]["split"], rows["x"]["tags"]) == ("test", "?")
    assert sorted(row["split"] for row in rows.values()) == ["test", *["train"] * 8, *["val"] * 2]


ESCAPES = (
    "../secret.jpg",
    "/etc/secret.jpg",
    "..\\secret.jpg",
    "%2e%2e/secret.jpg",
    "{outside}",
    "sub/../../secret.jpg",
)


@pytest.mark.parametrize("name", ESCAPES)
def test_paths_do_not_lead_out_of_the_folder(name: str, tmp_path: Path, capsys) -> None:
    photos_in(tmp_path, "secret.jpg", "source/a.jpg", "source/b.jpg", "source/c.jpg")
    name = name.format(outside=tmp_path / "secret.jpg")
    table = write_text(tmp_path / "source/t.csv", f"image,label\na.jpg,cat\nb.jpg,cat\n{name},cat\n")
    assert run(table, tmp_path / "out") == 0
    assert sorted(tags_by_name(tmp_path / "out")) == ["a", "b"]
    assert "no such file: 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "file"),
    {
        "C:\\me\\photos\\A.JPG": "photos/a.jpg",
        "/home/me/set/photos/a.jpg": "photos/a.jpg",
        "a%20b.jpg": "a b.jpg",
        "a.jpg": "deep/er/a.JPG",
        "caf\u00e9.jpg": "cafe\u0301.jpg",
        "50%.jpg": "50%.jpg",
    }.items(),
)
def test_photos_are_found_by_similar_names(name: str, file: str, tmp_path: Path) -> None:
    photos_in(tmp_path / "source", file, "x.jpg")
    table = f"\ufeffimage;cat\r\n{name};x\r\nx.jpg;x\r\n"
    write_text(tmp_path / "source/t.csv", table)
    assert run(tmp_path / "source", tmp_path / "out") == 0
    assert len(rows_of(tmp_path / "out")) == 2


def test_ambiguous_name_is_left_out(tmp_path: Path, capsys) -> None:
    photos_in(tmp_path / "source", "a/1.jpg", "b/1.jpg", "2.jpg", "3.jpg", "4.jpg")
    names = ("1.jpg", "c/1.jpg", "2.jpg", "3.jpg", "x/4.jpg", "y/4.jpg")
    write_text(tmp_path / "source/t.csv", "image,label\n" + "".join(f"{name},cat\n" for name in names))
    assert run(tmp_path / "source", tmp_path / "out") == 0
    assert sorted(rows_of(tmp_path / "out")) == ["2", "3", "4"]
    printed = capsys.readouterr().out
    assert ": 2: 1.jpg, y/4.jpg" in printed and "no such file: 1: c/1.jpg" in printed


@pytest.mark.parametrize(
    ("flags", "words"),
    {
        ("--val", "0"): "--val: must be between 0 and 1, got 0.0",
        ("--val", "nan"): "--val: must be between 0 and 1, got nan",
        ("--classes", "cat,owl"): "--classes: must be classes of",
        ("--exclude", "owl"): "got 'owl'",
        ("--exclude", "cat,dog"): "(0 with a class)",
        ("--images", "nowhere"): "nowhere: must be the folder of the photos",
    }.items(),
)
def test_tags_rejects_bad_flags(flags: tuple[str, ...], words: str, tmp_path: Path, refused) -> None:
    source = WRITERS["folders"](tmp_path / "source", COUNT)
    assert words in refused(run, source, tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_out_must_be_new_or_empty_and_outside_the_source(tmp_path: Path, refused) -> None:
    source, out = WRITERS["folders"](tmp_path / "source", COUNT), tmp_path / "out"
    write_text(out / "mine.txt", "mine")
    assert "must be a new or an empty folder" in refused(run, source, out)
    assert "must be a new or an empty folder" in refused(run, source, out / "mine.txt")
    assert "must be outside" in refused(run, source, source / "out")
    assert "no such file or folder" in refused(run, tmp_path / "nowhere", tmp_path / "other")
    assert "must be one of the kinds" in refused(run, out, tmp_path / "other")
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    (out / "mine.txt").unlink()
    assert run(source, out) == 0


def test_failed_writing_leaves_nothing(tmp_path: Path, monkeypatch, refused) -> None:
    source = WRITERS["coco"](tmp_path / "source", COUNT)
    full = OSError(28, "full", str(tmp_path / "out"))

    def fails(*_: object) -> None:
        raise full

    monkeypatch.setattr("plda.use.tags.encode_mask", fails)
    assert "no space left" in refused(run, source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("name", ["a;b", "red #ff0000", "red 1,2,3"])
def test_class_names_that_tables_cannot_hold_are_refused(name: str, tmp_path: Path, refused) -> None:
    photos_in(tmp_path / "source", f"{name}/1.jpg", "cat/2.jpg", "cat/3.jpg")
    assert f"got {name!r}; rename it" in refused(run, tmp_path / "source", tmp_path / "out")
    quoted = f'"{name}"'
    assert run(tmp_path / "source", tmp_path / "out", "--exclude", quoted) == 0


def test_coco_crowds_are_void_and_boxes_make_no_mask(tmp_path: Path) -> None:
    photos_in(tmp_path / "source", *(f"p{i}.jpg" for i in range(4)))
    crowd = np.zeros((HEIGHT, WIDTH), bool)
    crowd[10:, 20:] = True
    flat = crowd.ravel("F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    square = [8, 8, 24, 8, 24, 24, 8, 24]
    things = [
        {"image_id": 0, "iscrowd": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}},
        {"image_id": 0, "iscrowd": 0, "segmentation": [square]},
        {"image_id": 1, "segmentation": [square]},
        {"image_id": 1, "bbox": [0, 0, 9, 9]},
        {"image_id": 2},
    ]
    content = {
        "images": [{**IMAGE, "id": i, "file_name": f"p{i}.jpg"} for i in range(4)],
        "categories": [CAT],
        "annotations": [{"id": i, "category_id": 1, **thing} for i, thing in enumerate(things)],
    }
    assert run(write_text(tmp_path / "source/a.json", json.dumps(content)), tmp_path / "out") == 0
    rows = rows_of(tmp_path / "out")
    assert tags_by_name(tmp_path / "out") == {"p0": "cat", "p1": "cat", "p2": "cat", "p3": ""}
    assert [name for name, row in rows.items() if row["mask"]] == ["p0"]
    expected = np.where(crowd, 255, 0)
    expected[8:24, 8:24] = 1
    np.testing.assert_array_equal(read_mask((tmp_path / "out" / rows["p0"]["mask"]).read_bytes()), expected)


def test_coco_string_of_run_lengths_is_read() -> None:
    pixels = np.random.default_rng(0).integers(0, 2, (50, 70), np.uint8)
    packed = rle.encode(np.asfortranarray(pixels))
    found = runs(packed["counts"].decode(), [50, 70], "here")
    np.testing.assert_array_equal(rle.decode(found), pixels)


def test_outlines_of_another_size_make_no_mask(tmp_path: Path, capsys) -> None:
    source = WRITERS["cvat"](tmp_path / "source", COUNT)
    source.write_text(source.read_text().replace("width='64' height='48'", "width='48' height='64'", 1))
    assert run(source, tmp_path / "out") == 0
    assert not rows_of(tmp_path / "out")["p00"]["mask"]
    assert "its photo is kept: 1: p00.jpg (its photo must be 48x64" in capsys.readouterr().out


def test_voc_masks_follow_labelmap(tmp_path: Path) -> None:
    source = WRITERS["voc"](tmp_path / "source", COUNT)
    write_text(source / "labelmap.txt", "# label:color\nbackground:0,0,0::\nkitten:9,8,7::\npuppy:1,2,3::\n")
    colours = np.array([(0, 0, 0), (9, 8, 7), (1, 2, 3)], np.uint8)
    for i in range(COUNT):
        xml = source / f"Annotations/p{i:02}.xml"
        xml.write_text(xml.read_text().replace("cat", "kitten").replace("dog", "puppy"))
        mask = encoded(Image.fromarray(colours[ids_of(i)]), "PNG")
        (source / f"SegmentationClass/p{i:02}.png").write_bytes(mask)
    assert run(source, tmp_path / "out") == 0
    for i in range(COUNT):
        mask = tmp_path / "out" / rows_of(tmp_path / "out")[f"p{i:02}"]["mask"]
        np.testing.assert_array_equal(read_mask(mask.read_bytes()), ids_of(i))
    (source / "labelmap.txt").unlink()
    assert run(source, tmp_path / "other") == 0
    assert not any(row["mask"] for row in rows_of(tmp_path / "other").values())


def test_photos_that_are_not_written_are_counted_once(tmp_path: Path, capsys) -> None:
    source = WRITERS["voc"](tmp_path / "source", COUNT)
    write_photo(source / "JPEGImages/extra.jpg", 50)
    write_text(source / "ImageSets/Main/val.txt", "p03\n")  # without p07 and p11
    (source / "JPEGImages/p00.jpg").unlink()
    assert run(source, tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith("left out")] == [
        "left out, no such file: 1: p00.jpg",
        "left out, in no list of ImageSets/Main: 2: p07, p11",
        "left out, no label names it: 1: extra.jpg",
    ]
    assert ["photos", "8", "1", "0"] in [line.split() for line in printed.splitlines()]


def test_voc_photo_in_two_lists_is_refused(tmp_path: Path, refused) -> None:
    source = WRITERS["voc"](tmp_path / "source", COUNT)
    write_text(source / "ImageSets/Main/val.txt", "p03\np00\n")
    assert "line 2: 'p00' must be in one list" in refused(run, source, tmp_path / "out")


def test_yolo_boxes_and_turned_boxes_make_no_masks(tmp_path: Path) -> None:
    photos_in(tmp_path / "source", *(f"images/{i}.jpg" for i in range(5)))
    write_text(tmp_path / "source/data.yaml", "path: ../data\ntrain: images\nval: images\nnames: [cat, dog]")
    turned = "1 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5"
    for i, line in enumerate(("0 0.5 0.5 0.1 0.1", turned, "0 0.5 0.5 0.1 0.1\n" + turned, "7 0 0 0 0")):
        write_text(tmp_path / f"source/labels/{i}.txt", line)
    assert run(tmp_path / "source", tmp_path / "out") == 0
    assert tags_by_name(tmp_path / "out") == {"0": "cat", "1": "dog", "2": "cat;dog", "4": ""}
    rows = rows_of(tmp_path / "out").values()
    assert not any(row["mask"] for row in rows)
    assert {row["split"] for row in rows} == {"train", "val"}  # val was equal to train


def test_yolo_reads_lists_of_photos(tmp_path: Path) -> None:
    source = WRITERS["yolo"](tmp_path / "source", COUNT)
    write_text(source / "data.yaml", "train: train.txt\nval: [valid/images]\nnames: [cat, dog]")
    write_text(source / "train.txt", "./train/images/p00.jpg\n/data/train/images/p01.jpg\n")
    assert run(source, tmp_path / "out") == 0
    assert sorted(rows_of(tmp_path / "out")) == ["p00", "p01", "p03", "p07", "p11"]


def test_labelstudio_tells_unlabelled_from_empty(tmp_path: Path) -> None:
    photos_in(tmp_path / "source", "sub/a b.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg")
    choices, kinds = {"choices": ["cat"]}, {"taxonomy": [["animal", "dog"]]}
    result = [{"value": value} for value in (choices, kinds, {"text": ["a note"]})]
    tasks = [
        {"data": {"image": "/data/local-files/?d=me%2Fsub%2Fa%20b.jpg"}, "annotations": [{"result": result}]},
        {"data": {"image": "/data/upload/1/0123abcd-b.jpg"}, "annotations": []},
        {"data": {"img": "https://host/x/c.jpg?k=1"}, "annotations": [{"result": [], "was_cancelled": True}]},
        {"data": {"image": "s3://bucket/d.jpg"}, "annotations": [{"result": []}]},
        {"data": {"photo": "e.jpg"}, "annotations": [{"result": [{"value": {"rectanglelabels": ["cat"]}}]}]},
    ]
    assert run(write_text(tmp_path / "source/a.json", json.dumps(tasks)), tmp_path / "out") == 0
    expected = {"a b": "cat;dog", "b": "?", "c": "?", "d": "", "e": "cat"}
    assert tags_by_name(tmp_path / "out") == expected


def test_labelstudio_reads_json_min(tmp_path: Path) -> None:
    photos_in(tmp_path / "source", "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    same = {"annotator": 1, "created_at": "today", "comment": "blurred"}
    tasks = [
        {"image": "a.jpg", "choice": "cat", **same},
        {"image": "b.jpg", "choice": {"choices": ["cat", "dog"]}, **same},
        {"image": "c.jpg", "label": [{"x": 1, "y": 2, "rectanglelabels": ["dog"]}], **same},
        {"image": "d.jpg", **same},
    ]
    assert run(write_text(tmp_path / "source/a.json", json.dumps(tasks)), tmp_path / "out") == 0
    assert tags_by_name(tmp_path / "out") == {"a": "cat", "b": "cat;dog", "c": "dog", "d": ""}


def test_table_reads_words_for_yes_and_a_column_of_classes(tmp_path: Path) -> None:
    photos_in(tmp_path / "source", "a.jpg", "b.jpg", "c.jpg")
    write_text(
        tmp_path / "source/t.tsv", "path\tcat\tdog\tnote\na\tTrue\tFALSE\told\nb\tyes\tx\t\nc\t\t-\t\n"
    )
    assert run(tmp_path / "source", tmp_path / "out") == 0
    assert tags_by_name(tmp_path / "out") == {"a": "cat", "b": "cat;dog", "c": ""}
    table = write_text(
        tmp_path / "own.csv", 'image,split,tags\na,train,"cat, dog"\nb,valid,cat;dog\nc,test,?\n'
    )
    assert run(table, tmp_path / "again", "--images", str(tmp_path / "source")) == 0
    rows = rows_of(tmp_path / "again")
    assert tags_by_name(tmp_path / "again") == {"a": "cat;dog", "b": "cat;dog", "c": "?"}
    assert [rows[name]["split"] for name in "abc"] == ["train", "val", "test"]


def test_table_may_have_a_row_per_object(tmp_path: Path, capsys) -> None:
    photos_in(tmp_path / "source", "a.jpg", "b.jpg")
    write_text(
        tmp_path / "source/t.csv", "image,label,x\na.jpg,cat,1\na.jpg,dog,2\na.jpg,cat,3\nb.jpg,cat,4\n"
    )
    assert run(tmp_path / "source", tmp_path / "out") == 0
    assert tags_by_name(tmp_path / "out") == {"a": "cat;dog", "b": "cat"}
    assert "left out" not in capsys.readouterr().out


def test_coco_reads_a_file_in_each_split_folder(tmp_path: Path) -> None:
    for split, number in (("train", 0), ("valid", 1)):  # as Roboflow writes them, with equal names
        write_photo(tmp_path / f"source/{split}/p00.jpg", number)
        content = coco_with(
            categories=[{"id": 0, "name": "cat"}, CAT],
            annotations=[{"id": 1, "image_id": 1, "category_id": 1}],
        )
        write_text(tmp_path / f"source/{split}/_annotations.coco.json", content)
    assert run(tmp_path / "source", tmp_path / "out") == 0
    table = (tmp_path / "out/tags.csv").read_text().splitlines()
    assert table[1:] == ["images/train/p00.jpg,train,cat,", "images/valid/p00.jpg,val,cat,"]


def test_huggingface_reads_csv_and_null(tmp_path: Path) -> None:
    photos_in(tmp_path / "source", "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    lines = [
        {"file_name": "a.jpg", "label": "cat"},
        {"file_name": "b.jpg", "label": None},
        {"file_name": "c.jpg", "label": []},
        {"file_name": "d.jpg", "label": [3, "cat"]},
    ]
    write_text(tmp_path / "source/metadata.jsonl", "\n".join(map(json.dumps, lines)))
    assert run(tmp_path / "source", tmp_path / "out") == 0
    assert tags_by_name(tmp_path / "out") == {"a": "cat", "b": "?", "c": "", "d": "3;cat"}
    (tmp_path / "source/metadata.jsonl").unlink()
    write_text(tmp_path / "source/metadata.csv", "file_name,tags\na.jpg,cat\nb.jpg,cat;dog\n")
    assert run(tmp_path / "source", tmp_path / "other") == 0
    assert tags_by_name(tmp_path / "other") == {"a": "cat", "b": "cat;dog"}


@pytest.mark.slow  # index_data accepts all these folders, above; the tutorial runs one to the end
@pytest.mark.parametrize("kind", WRITERS)
def test_pipeline_runs_on_written_folder(kind: str, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "tree")
    assert run(WRITERS[kind](tmp_path / "source", 16), tree.folder / "photos") == 0
    tree.leave_out_optional_stages()
    tree.set("source", "folder")
    tree.set("index_data.folder", "photos")
    tree.run("snakemake", "--cores", "1")
    page = (tree.folder / "results/main/report/report.html").read_text()
    assert "cat" in page and "dog" in page
