"""Drawn VOC 2012 and SBD: images, tags and masks that are read, and rejected inputs."""

import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_voc import DEVKIT, SBD, SETS, DrawnVoc, class_mat, draw_voc, lines, mat
from PIL import Image

from plda.data.images import VOID, read_image, read_mask
from plda.data.source import Row
from plda.download.extract import extract
from plda.download.packed import Packed
from plda.errors import InputError
from plda.sources.checks import Checker
from plda.sources.voc import CLASSES, read_voc

LIMIT = 1 << 24
XML = "<annotation><object><name>{}</name></object></annotation>"


class Unpacked:
    """The drawn archives as valid folders; a test may corrupt a file."""

    def __init__(self, drawn: DrawnVoc, folder: Path) -> None:
        self.drawn, self.folder = drawn, folder
        self.voc, self.sbd = folder / "voc" / DEVKIT, folder / "sbd" / SBD
        extract(drawn.devkit, folder / "voc", limit=LIMIT)
        extract(drawn.extra, folder / "sbd", limit=LIMIT)

    def read(self, **counts: int) -> list[Row]:
        voc, sbd = Packed(self.folder / "voc"), Packed(self.folder / "sbd")
        return list(read_voc(voc, sbd, None, self.drawn.counts | counts).rows)

    def refusal(self, **counts: int) -> str:
        with pytest.raises(InputError) as caught:
            self.read(**counts)
        return str(caught.value)


class Memory(Packed):
    """An archive in memory."""

    def __init__(self, path: str, files: dict[str, bytes]) -> None:
        self.path, self.files = Path(path), files

    def names(self) -> list[str]:
        return list(self.files)

    def read(self, name: str) -> bytes:
        return self.files[name]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> DrawnVoc:
    return draw_voc(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="module")
def sbd(drawn: DrawnVoc, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    folder = tmp_path_factory.mktemp("sbd") / "sbd"
    extract(drawn.extra, folder, limit=LIMIT)
    return Packed(folder)


@pytest.fixture
def unpacked(drawn: DrawnVoc, tmp_path: Path) -> Unpacked:
    return Unpacked(drawn, tmp_path)


def ids(rows: list[Row], split: str) -> list[str]:
    return [Path(row.image).stem for row in rows if row.split == split]


def test_classes_match_voc() -> None:
    assert len(CLASSES) == 21
    assert list(CLASSES[1:]) == sorted(CLASSES[1:])
    known = {0: "background", 1: "aeroplane", 8: "cat", 12: "dog", 15: "person", 20: "tvmonitor"}
    assert {number: CLASSES[number] for number in known} == known


def test_read_voc_gives_expected_lists_tags_and_masks(drawn: DrawnVoc, sbd: Packed) -> None:
    source = read_voc(Packed(drawn.devkit), sbd, Packed(drawn.test), drawn.counts)
    assert source.classes == CLASSES
    rows = list(source.rows)
    assert ids(rows, "train") == drawn.lists["trainaug"]
    assert ids(rows, "val") == drawn.lists["voc_val"]
    assert ids(rows, "test") == drawn.lists["test"]
    assert len(rows) == sum(len(drawn.lists[name]) for name in ("trainaug", "voc_val", "test"))
    for row in rows:
        name = Path(row.image).stem
        image = read_image(row.content)
        if row.split == "test":
            assert (row.tags, row.mask) == ((), None)
            assert row.origin == f"VOC2012test.tar: {name}"
        else:
            assert tuple(sorted(row.tags)) == drawn.tags[name]
            mask = read_mask(row.mask)
            assert mask.shape == image.size[::-1]
            assert np.array_equal(mask, drawn.masks[name]), name
            assert row.origin == f"VOCtrainval_11-May-2012.tar: {name}"


def test_draw_voc_lists_overlap_in_all_ways(drawn: DrawnVoc) -> None:
    """Otherwise the test above would show little."""
    train, val, first, second = (
        set(drawn.lists[k]) for k in ("voc_train", "voc_val", "sbd_train", "sbd_val")
    )
    aug = set(drawn.lists["trainaug"])
    for here, there in ((train, first), (train, second), (val, first), (val, second)):
        assert here & there
    assert train - first - second
    assert val - first - second
    assert first - train - val
    assert second - train - val
    assert aug == (train | first | second) - val
    assert {tag for name in aug for tag in drawn.tags[name]} == {"cat", "dog", "person"}
    assert any(VOID in drawn.masks[name] for name in aug)
    assert not any(VOID in drawn.masks[name] for name in aug - train)


def test_read_voc_works_without_test_archive(drawn: DrawnVoc, sbd: Packed) -> None:
    rows = list(read_voc(Packed(drawn.devkit), sbd, None, drawn.counts).rows)
    assert {row.split for row in rows} == {"train", "val"}


def test_read_voc_rows_pass_checks(drawn: DrawnVoc, sbd: Packed) -> None:
    source = read_voc(Packed(drawn.devkit), sbd, None, drawn.counts)
    checker = Checker(source, None)
    checked = [checker.check(row) for row in source.rows]
    checker.finish()
    for entry, files in checked:
        assert files[entry.image].startswith(b"\xff\xd8\xff")  # the original JPEG, not encoded again
        assert np.array_equal(read_mask(files[entry.mask]), drawn.masks[Path(entry.key).name])


def test_read_voc_reads_rows_lazily(drawn: DrawnVoc, sbd: Packed) -> None:
    read: list[str] = []

    class Watched(Packed):
        def read(self, name: str) -> bytes:
            read.append(Path(name).suffix)
            return super().read(name)

    source = read_voc(Watched(drawn.devkit), sbd, None, drawn.counts)
    assert set(read) == {".txt"}
    rows = iter(source.rows)
    for count in (1, 2, 3):
        next(rows)
        assert read.count(".jpg") == count


@pytest.mark.parametrize("named", ["VOCdevkit", "VOCdevkit/VOC2012"])
@pytest.mark.parametrize("extra", ["benchmark_RELEASE", "benchmark_RELEASE/dataset"])
def test_read_voc_accepts_user_folders(unpacked: Unpacked, named: str, extra: str) -> None:
    older = unpacked.folder / "voc" / "VOCdevkit" / "VOC2007" / SETS
    older.mkdir(parents=True)
    (older / "train.txt").write_text("000032\n")
    voc, sbd = Packed(unpacked.folder / "voc" / named), Packed(unpacked.folder / "sbd" / extra)
    drawn = unpacked.drawn
    rows = list(read_voc(voc, sbd, None, drawn.counts).rows)
    assert ids(rows, "train") == drawn.lists["trainaug"]
    assert rows[0].origin == f"{Path(named).name}: {Path(rows[0].image).stem}"
    assert all(np.array_equal(read_mask(r.mask), drawn.masks[Path(r.image).stem]) for r in rows)


def test_read_voc_accepts_archives_in_one_folder(unpacked: Unpacked) -> None:
    drawn = unpacked.drawn
    extract(drawn.test, unpacked.folder / "test", limit=LIMIT)
    shutil.copytree(unpacked.folder / "test" / DEVKIT, unpacked.voc, dirs_exist_ok=True)
    voc = Packed(unpacked.voc)
    rows = list(read_voc(voc, Packed(unpacked.sbd), voc, drawn.counts).rows)
    assert ids(rows, "test") == drawn.lists["test"]


def test_packed_tar_ignores_working_folder(
    drawn: DrawnVoc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working folder has a link with the name of the archive's top folder."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "VOCdevkit").symlink_to(tmp_path)
    before = Packed(drawn.devkit).names()
    monkeypatch.chdir(tmp_path / "here")
    assert Packed(drawn.devkit).names() == before


def test_read_voc_tags_classes_of_all_objects(unpacked: Unpacked) -> None:
    name = unpacked.drawn.lists["trainaug"][0]
    (unpacked.voc / f"Annotations/{name}.xml").write_text(
        "<annotation><source><name>boat</name></source><name>bus</name>"
        "<object><name>sofa</name><difficult>1</difficult></object>"
        "<object><name> cow\n</name><truncated>1</truncated><part><name>head</name></part></object>"
        "<object><part><name>cat</name></part><name>sofa</name></object></annotation>"
    )
    assert unpacked.read()[0].tags == ("sofa", "cow")


def test_read_voc_checks_only_given_counts(unpacked: Unpacked) -> None:
    voc, sbd = Packed(unpacked.voc), Packed(unpacked.sbd)
    assert len(list(read_voc(voc, sbd, None, {}).rows)) == 12
    with pytest.raises(InputError, match=f"{SETS}/val.txt: lists 4 images, expected 1449"):
        read_voc(voc, sbd, None, {"voc_val": 1449})


@pytest.mark.parametrize(
    ("count", "file"),
    [
        ("voc_train", f"voc: {DEVKIT}/{SETS}/train.txt: lists"),
        ("voc_val", f"voc: {DEVKIT}/{SETS}/val.txt: lists"),
        ("sbd_train", f"sbd: {SBD}/train.txt: lists"),
        ("sbd_val", f"sbd: {SBD}/val.txt: lists"),
        ("trainaug", "sbd: the lists together have"),
    ],
)
def test_read_voc_rejects_list_of_another_length(unpacked: Unpacked, count: str, file: str) -> None:
    there = unpacked.drawn.counts[count]
    message = unpacked.refusal(**{count: there + 1})
    assert f"{file} {there} " in message
    assert f"images, expected {there + 1}: this is not the published archive" in message


def test_read_voc_rejects_test_list_of_another_length(drawn: DrawnVoc, sbd: Packed) -> None:
    with pytest.raises(InputError, match=f"test.tar: {DEVKIT}/{SETS}/test.txt: lists 2 images, expected 3"):
        read_voc(Packed(drawn.devkit), sbd, Packed(drawn.test), drawn.counts | {"test": 3})


def test_read_voc_rejects_duplicate_in_list(unpacked: Unpacked) -> None:
    names = unpacked.drawn.lists["sbd_val"]
    (unpacked.sbd / "val.txt").write_bytes(lines([*names, names[0]]))
    place = f"{unpacked.folder}/sbd: {SBD}/val.txt"
    assert unpacked.refusal() == f"{place}: duplicate image {names[0]}, listed 2 times"


def test_read_voc_rejects_list_that_is_not_text(unpacked: Unpacked) -> None:
    (unpacked.sbd / "val.txt").write_bytes(b"\xff\xfe2007")
    assert f"{unpacked.folder}/sbd: {SBD}/val.txt: is not a list of images" in unpacked.refusal()


def test_read_voc_ignores_spaces_and_empty_lines(unpacked: Unpacked) -> None:
    names = unpacked.drawn.lists["voc_train"]
    (unpacked.voc / SETS / "train.txt").write_text("\n".join(f" {name} \r" for name in names) + "\n\n")
    assert ids(unpacked.read(), "train") == unpacked.drawn.lists["trainaug"]


def test_read_voc_rejects_missing_or_ambiguous_lists(unpacked: Unpacked) -> None:
    voc = Packed(unpacked.voc)
    with pytest.raises(InputError, match=f"VOC2012: holds no {SETS}/test.txt"):
        read_voc(voc, Packed(unpacked.sbd), voc, {})
    with pytest.raises(InputError, match=r"VOC2012: holds .*Segmentation/train.txt; give the folder"):
        shutil.copytree(unpacked.voc / SETS, unpacked.voc / "ImageSets" / "Main")
        read_voc(voc, Packed(unpacked.voc), None, {})
    shutil.copytree(unpacked.sbd / "cls", unpacked.sbd / "mine")
    (unpacked.sbd / "mine" / "train.txt").touch()
    assert read_voc(voc, Packed(unpacked.sbd), None, unpacked.drawn.counts)  # the named folder has priority
    (unpacked.sbd / "val.txt").unlink()
    assert f"/sbd: holds no {SBD}/val.txt: this is not the published archive" in unpacked.refusal()


@pytest.mark.parametrize("kind", ["JPEGImages/{}.jpg", "Annotations/{}.xml", "SegmentationClass/{}.png"])
def test_read_voc_names_missing_voc_file(unpacked: Unpacked, kind: str) -> None:
    file = kind.format(unpacked.drawn.lists["voc_val"][1])
    (unpacked.voc / file).unlink()
    assert f"{unpacked.folder}/voc: holds no {DEVKIT}/{file}: " in unpacked.refusal()


def test_read_voc_names_missing_sbd_file(unpacked: Unpacked) -> None:
    lists = unpacked.drawn.lists
    both = min({*lists["sbd_train"]} & {*lists["voc_train"]})
    (unpacked.sbd / f"cls/{both}.mat").unlink()  # SBD's mask is not needed where VOC has one
    unpacked.read()
    name = min({*lists["sbd_train"], *lists["sbd_val"]} - {*lists["voc_train"], *lists["voc_val"]})
    (unpacked.sbd / f"cls/{name}.mat").unlink()
    assert f"{unpacked.folder}/sbd: holds no {SBD}/cls/{name}.mat: " in unpacked.refusal()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (XML.format("unicorn"), "field object/name: 'unicorn' is not a class of VOC"),
        (XML.format("background"), "field object/name: 'background' is not a class of VOC"),
        (XML.format(""), "field object/name: '' is not a class of VOC"),
        ("<annotation><object/></annotation>", "field object/name: '' is not a class of VOC"),
        ("<annotation><folder>VOC2012</folder></annotation>", "field object: is missing"),
        (XML.format("cat")[:-4], "is not an annotation: unclosed token"),
        ("", "is not an annotation: no element found"),
        ("\0\1\2", "is not an annotation: not well-formed"),
        (
            '<?xml version="1.0" encoding="klingon"?>' + XML.format("cat"),
            "is not an annotation: unknown encoding",
        ),
        (
            '<!DOCTYPE a [<!ENTITY b "cat">]>' + XML.format("&b;"),
            "is not an annotation: document types are not allowed",
        ),
    ],
)
def test_read_voc_rejects_invalid_annotation(unpacked: Unpacked, content: str, words: str) -> None:
    file = f"Annotations/{unpacked.drawn.lists['voc_val'][0]}.xml"
    for code in ("utf-8", "utf-16") if "DOCTYPE" in content else ("utf-8",):
        (unpacked.voc / file).write_bytes(content.encode(code))
        assert f"{unpacked.folder}/voc: {DEVKIT}/{file}: {words}" in unpacked.refusal()


@pytest.mark.parametrize("compressed", [True, False])
def test_read_voc_accepts_masks_of_other_number_types(unpacked: Unpacked, compressed: bool) -> None:
    """MATLAB's number type does not matter as long as every value is an id."""
    name = "2009_000002"
    mask = unpacked.drawn.masks[name]
    for kind in (np.int32, np.uint16, np.float64):
        content = mat("GTcls", {"Segmentation": mask.astype(kind)}, compressed=compressed)
        (unpacked.sbd / f"cls/{name}.mat").write_bytes(content)
        (row,) = (row for row in unpacked.read() if row.image == f"{name}.jpg")
        assert np.array_equal(read_mask(row.mask), mask)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read"),
        (b"PK\3\4" * 100, "cannot be read"),
        (mat("GTinst", {"Segmentation": np.ones((3, 4))}), "cannot be read: KeyError('GTcls')"),
        (mat("GTcls", {"Boundaries": np.ones((3, 4))}), "cannot be read"),
        (mat("GTcls", {"Segmentation": "none"}), "cannot be read"),
        (mat("GTcls", {"Segmentation": np.full((3, 4), 300)}), "must hold class ids, (H, W), got (3, 4)"),
        (mat("GTcls", {"Segmentation": np.full((3, 4), -1)}), "must hold class ids, (H, W), got (3, 4)"),
        (mat("GTcls", {"Segmentation": np.full((3, 4), 0.5)}), "must hold class ids, (H, W), got (3, 4)"),
        (mat("GTcls", {"Segmentation": np.ones((3, 4, 2))}), "must hold class ids, (H, W), got (3, 4, 2)"),
        (mat("GTcls", {"Segmentation": np.ones((0, 4))}), "must hold class ids, (H, W), got (0, 4)"),
    ],
)
def test_read_voc_rejects_invalid_sbd_mask(unpacked: Unpacked, content: bytes, words: str) -> None:
    (unpacked.sbd / "cls/2009_000002.mat").write_bytes(content)
    place = f"{unpacked.folder}/sbd: {SBD}/cls/2009_000002.mat: field GTcls.Segmentation: "
    assert f"{place}{words}" in unpacked.refusal()


@pytest.mark.filterwarnings("ignore")
def test_read_voc_reports_any_damage_to_sbd_mask() -> None:
    rng = np.random.default_rng(0)
    content = class_mat(np.tile(np.arange(21, dtype=np.uint8), (40, 3)))
    assert len(content) > 600
    for _ in range(300):
        spoilt = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 4)):
            spoilt[place] = rng.integers(256)
        sbd = Memory(
            "sbd", {"dataset/cls/a.mat": bytes(spoilt[: rng.integers(len(content) // 2, 2 * len(content))])}
        )
        source = one_image(sbd)
        try:
            mask = next(iter(source)).mask
        except InputError as error:
            assert "dataset/cls/a.mat: field GTcls.Segmentation: " in str(error)
        else:
            assert read_mask(mask).ndim == 2


def one_image(sbd: Memory) -> Iterator[Row]:
    """Return the rows of a data set with one training image, `a`, whose mask is in `sbd`."""
    voc = {f"{SETS}/train.txt": b"", f"{SETS}/val.txt": b"", "JPEGImages/a.jpg": b"jpg"}
    voc["Annotations/a.xml"] = XML.format("cat").encode()
    sbd.files |= {"dataset/train.txt": b"a", "dataset/val.txt": b""}
    return iter(read_voc(Memory("voc", voc), sbd, None, {}).rows)


def test_read_voc_joins_arbitrary_lists() -> None:
    """Train has all images with a mask except VOC's val; VOC's masks have priority; no image occurs twice."""
    pool = [f"2007_{i:06}" for i in range(12)]
    sbd_mask = class_mat(np.full((2, 2), 7, np.uint8))
    png = io.BytesIO()
    Image.fromarray(np.full((2, 2), 9, np.uint8)).save(png, "PNG")
    voc = {f"JPEGImages/{name}.jpg": name.encode() for name in pool}
    voc |= {f"Annotations/{name}.xml": XML.format("cat").encode() for name in pool}
    voc |= {f"SegmentationClass/{name}.png": png.getvalue() for name in pool}
    sbd = {f"cls/{name}.mat": sbd_mask for name in pool}
    for seed in range(60):
        rng = np.random.default_rng(seed)

        def some(rng: np.random.Generator = rng) -> list[str]:
            return [str(name) for name in rng.permutation(pool)[: rng.integers(len(pool) + 1)]]

        order = [str(name) for name in rng.permutation(pool)]
        cut, end = sorted(rng.integers(0, len(pool) + 1, 2))
        train, val, first, second = order[:cut], order[cut:end], some(), some()
        files = Memory("voc", voc | {f"{SETS}/train.txt": lines(train), f"{SETS}/val.txt": lines(val)})
        more = Memory("sbd", sbd | {"train.txt": lines(first), "val.txt": lines(second)})
        rows = list(read_voc(files, more, None, {}).rows)
        assert ids(rows, "train") == sorted({*train, *first, *second} - {*val})
        assert ids(rows, "val") == sorted(val)
        assert len({row.image for row in rows}) == len(rows)
        for row in rows:
            name = Path(row.image).stem
            assert row.content == name.encode()
            assert read_mask(row.mask)[0, 0] == (9 if name in train + val else 7)
            assert replace(row, mask=None, content=b"").tags == ("cat",)
