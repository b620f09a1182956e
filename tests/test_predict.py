"""A trained network on photos: windows, names, what is written, what is refused."""

import csv
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Refusal, encoded, photo, run_stage, write_params
from PIL import ExifTags, Image, ImageOps
from torch.nn import functional as F

from plda.__main__ import main
from plda.data.archive import Archive
from plda.data.classes import read_classes
from plda.data.images import encode_image, read_image, read_mask
from plda.data.index import read_index
from plda.masks import windows
from plda.masks.folder import load_mask
from plda.masks.windows import enlarged, in_windows
from plda.models.saved import Architecture, load, read_network, save_network
from plda.use import network as trained
from plda.use.network import TrainedNetwork
from plda.use.overlay import SIDE, draw_overlay
from plda.use.photos import find_photos

CLASSES = ("background", "cat", "dog")
KINDS = (("masks", "png"), ("overlays", "jpg"), ("labels", "json"))


def saved(path: Path, classes: tuple[str, ...] = CLASSES, long_side: int | None = 64, seed: int = 0) -> Path:
    """A network that nobody trained, but that says various things."""
    torch.manual_seed(seed)
    architecture = Architecture("segmenter", "resnet10", 16, "frozen", "deeplabv2", classes, long_side)
    network = architecture.build()
    weights = network.state_dict()
    for name in weights:
        if name.startswith("head") and name.endswith("weight"):
            weights[name] *= 30
    save_network(path, architecture, weights)
    return path


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return saved(tmp_path / "network.pt")


def predict(*photos: Path, network: Path, out: Path, flags: tuple[str, ...] = ()) -> int:
    return main(["predict", *map(str, photos), "--network", str(network), "--out", str(out), *flags])


def written(out: Path) -> list[str]:
    return sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())


@pytest.mark.parametrize(("height", "width"), [(50, 70), (51, 20), (20, 20), (7, 133), (21, 45), (1, 20)])
def test_windows_together_see_what_one_sees(height: int, width: int) -> None:
    """A network that looks at each pixel alone says the same through windows; no window is larger."""
    image = torch.randint(0, 255, (3, height, width), dtype=torch.uint8)
    seen = []

    def look(part: torch.Tensor) -> torch.Tensor:
        seen.append(part.shape)
        return part.float()[:2] * 2

    bands = list(in_windows(look, image, 20))
    torch.testing.assert_close(torch.cat(bands, dim=1), image.float()[:2] * 2)
    assert max(max(shape[1:]) for shape in seen) <= 20
    assert all(band.shape[1] for band in bands)


def test_windows_share_a_quarter_and_weigh_less_towards_their_edges() -> None:
    starts, weights = windows._spread(100, 40)
    assert (starts[0], starts[-1] + 40) == (0, 100)
    assert all(b - a <= 30 for a, b in pairwise(starts))
    second = weights[1][: 40 - (starts[1] - starts[0])]  # what it shares with the first
    assert (second.diff() > 0).all()


@pytest.mark.parametrize("size", [(5, 7), (40, 33), (41, 90), (3, 2)])
def test_strips_are_bilinear_interpolation(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "STRIP", 500)
    maps = torch.rand(4, 5, 7)
    strips = list(enlarged(maps, *size))
    expected = F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(torch.cat(strips, dim=1), expected)
    assert len(strips) > 1 or size[0] * size[1] * 4 <= 500


def test_predict_says_what_the_stage_says(drawn: Path, tmp_path: Path) -> None:
    file = saved(tmp_path / "network.pt", read_classes(drawn / "classes.txt"))
    params = write_params(tmp_path / "params.yaml", predict_masks__scales=[1.0, 1.5])
    assert (
        run_stage(
            "predict_masks",
            params,
            index=drawn / "index.csv",
            images=drawn / "images.zip",
            classes=drawn / "classes.txt",
            segmenter=file,
            predictions=tmp_path / "masks",
        )
        == 0
    )
    labeller = TrainedNetwork(file, device="cpu", long_side="full", scales=(1.0, 1.5), flip=True)
    for entry in read_index(drawn / "index.csv", "val"):
        labelled = labeller.label(read_image(Archive(drawn / "images.zip").read(entry.image)))
        assert np.array_equal(labelled.ids, load_mask(tmp_path / "masks", entry))


def test_what_is_found_sums_up_the_pixels(network: Path) -> None:
    labelled = TrainedNetwork(network, device="cpu").label(photo(90, 60))
    assert len(labelled.found) > 1
    assert sum(each.share for each in labelled.found) == pytest.approx(1)
    assert [each.share for each in labelled.found] == sorted((e.share for e in labelled.found), reverse=True)
    for each in labelled.found:
        where = labelled.ids == each.id
        assert each.name == CLASSES[each.id]
        assert each.share == pytest.approx(where.mean())
        assert each.confidence == pytest.approx(labelled.confidence[where].mean(), rel=1e-5)
    assert 1 / 3 <= labelled.confidence.min() <= labelled.confidence.max() <= 1


def test_photos_are_seen_at_the_size_of_the_training(tmp_path: Path, monkeypatch) -> None:
    sizes = []

    def note(_network, _image, size, **_):
        sizes.append(tuple(size))
        return torch.ones(3, *size)

    monkeypatch.setattr(trained, "multi_scale", note)
    for noted, asked in ((64, "trained"), (None, "trained"), (64, "full"), (64, 40)):
        file = saved(tmp_path / "n.pt", long_side=noted)
        labelled = TrainedNetwork(file, device="cpu", long_side=asked).label(photo(200, 100))
        assert labelled.ids.shape == (100, 200)
    TrainedNetwork(saved(tmp_path / "n.pt"), device="cpu").label(photo(20, 32))
    assert sizes == [(32, 64), (100, 200), (100, 200), (20, 40), (64, 40)]


def test_training_notes_the_size_of_its_images(drawn: Path, tmp_path: Path) -> None:
    """A file from before it did is still read."""
    params = write_params(
        tmp_path / "params.yaml",
        train_segmenter__supervision="masks",
        train_segmenter__epochs=1,
        train_segmenter__scale=[1.0, 2.0],
    )
    assert (
        run_stage(
            "train_segmenter",
            params,
            index=drawn / "index.csv",
            images=drawn / "images.zip",
            classes=drawn / "classes.txt",
            pseudo_masks=tmp_path / "none",
            segmenter_backbone=drawn / "segmenter.pt",
            checkpoints=tmp_path / "checkpoints",
            segmenter=tmp_path / "network.pt",
            segmenter_history=tmp_path / "history.csv",
            segmenter_machine=tmp_path / "machine.json",
        )
        == 0
    )
    assert read_network(tmp_path / "network.pt", "segmenter")[0].long_side == 96
    content = load(tmp_path / "network.pt")
    del content["architecture"]["long_side"]
    torch.save(content, tmp_path / "old.pt")
    assert read_network(tmp_path / "old.pt", "segmenter")[0].long_side is None


def test_a_turned_photo_comes_out_upright(network: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    content = encoded(photo(90, 60), exif=exif)
    (tmp_path / "turned.jpg").write_bytes(content)
    upright = ImageOps.exif_transpose(Image.open(tmp_path / "turned.jpg"))
    assert upright.size == (60, 90)
    (tmp_path / "upright.png").write_bytes(encode_image(np.array(upright)))
    out = tmp_path / "out"
    assert predict(tmp_path / "turned.jpg", tmp_path / "upright.png", network=network, out=out) == 0
    masks = [read_mask((out / f"masks/{name}.png").read_bytes()) for name in ("turned", "upright")]
    assert masks[0].shape == (90, 60)
    assert np.array_equal(*masks)


def test_what_is_written(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos"
    (folder / "garden").mkdir(parents=True)
    for name in ("1.jpg", "garden/1.jpg", "garden/2.PNG", ".hidden.jpg", "notes.txt"):
        kind = "PNG" if name.endswith("PNG") else "JPEG"
        (folder / name).write_bytes(encoded(photo(80, 50, len(name)), kind))
    out = folder / "out"
    assert predict(folder, network=network, out=out) == 0
    assert "3 photos labelled" in capsys.readouterr().err
    names = ("1", "garden/1", "garden/2")
    expected = [f"{kind}/{n}.{end}" for kind, end in KINDS for n in names]
    assert written(out) == sorted([*expected, "classes.txt", "summary.csv"])
    assert read_classes(out / "classes.txt") == CLASSES
    rows = list(csv.DictReader((out / "summary.csv").open()))
    for name in names:
        about = json.loads((out / f"labels/{name}.json").read_text())
        ids = read_mask((out / about["mask"]).read_bytes())
        assert (about["height"], about["width"]) == ids.shape == (50, 80)
        for each in about["classes"]:
            assert each["share"] == pytest.approx((ids == each["id"]).mean(), abs=1e-6)
        mine = [row for row in rows if row["photo"] == about["photo"]]
        assert [(r["class"], float(r["share"])) for r in mine] == [
            (each["class"], each["share"]) for each in about["classes"]
        ]
    assert predict(folder, network=network, out=out, flags=("--overwrite", "--no-overlays")) == 0
    assert "3 photos labelled" in capsys.readouterr().err, "its own overlays are no photos"


def test_an_unreadable_photo_is_named_and_the_others_are_labelled(
    network: Path, tmp_path: Path, refused: Refusal
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    whole = encoded(photo(200, 200))
    (folder / "a.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "b.jpg").write_bytes(whole)
    (folder / "c.heic").write_bytes(b"what a phone makes")
    message = refused(predict, folder, network=network, out=tmp_path / "out")
    assert f"{folder}/a.jpg: cannot be decoded" in message
    assert f"{folder}/c.heic: cannot be decoded" in message
    assert "2 of 3 photos cannot be read" in message
    assert [p.name for p in (tmp_path / "out" / "masks").iterdir()] == ["b.png"]
    assert "b.jpg" in (tmp_path / "out" / "summary.csv").read_text()


def test_nonsense_is_refused_before_anything_is_written(
    network: Path, tmp_path: Path, refused: Refusal
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.jpg").write_bytes(encoded(photo(40, 30)))
    out = tmp_path / "out"
    cam = Architecture("cam", "resnet10", 16, "trained", "cam", CLASSES)
    save_network(tmp_path / "cam.pt", cam, cam.build().state_dict())
    one = tmp_path / "a.jpg"
    for photos, file, words in (
        ([tmp_path / "none.jpg"], network, ["none.jpg: no such file"]),
        ([tmp_path / "*.webp", tmp_path / "empty"], network, ["*.webp: no such file", "empty: no photo"]),
        ([one], tmp_path / "none.pt", ["none.pt: is missing"]),
        ([one], one, ["a.jpg: refused"]),
        ([one], tmp_path / "cam.pt", ["cam.pt: field kind: is 'cam', 'segmenter' is needed"]),
    ):
        message = refused(predict, *photos, network=file, out=out)
        assert all(word in message for word in words), message
        assert not out.exists()
    out.write_text("")
    assert "out: is a file" in refused(predict, one, network=network, out=out)
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "mine.txt").write_text("")
    assert "kept: is there and not empty" in refused(predict, one, network=network, out=kept)
    assert f"{tmp_path}: holds the photos" in refused(predict, tmp_path, network=network, out=tmp_path)
    if not torch.cuda.is_available():
        flags = ("--device", "cuda")
        assert "device: this machine has no 'cuda'" in refused(
            predict, one, network=network, out=tmp_path / "new", flags=flags
        )


@pytest.mark.parametrize("flag", ["--scales=0", "--scales=1,x", "--window=8", "--long-side=-1", "--scales=9"])
def test_a_wrong_value_is_a_usage_error(
    network: Path, tmp_path: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        predict(tmp_path, network=network, out=tmp_path / "out", flags=(flag,))
    assert stop.value.code == 2
    assert flag.partition("=")[0] in capsys.readouterr().err


def names_of(tmp_path: Path, files: list[str], given: list[str]) -> list[str]:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return [p.name for p in find_photos([str(tmp_path / text) for text in given], tmp_path / "out")]


@pytest.mark.parametrize(
    ("files", "given", "names"),
    [
        (["a/1.jpg", "b/1.jpg"], ["a", "b"], ["a/1", "b/1"]),
        (["a/1.jpg", "b/1.jpg"], ["a/1.jpg", "b/1.jpg"], ["a/1", "b/1"]),
        (["a/1.jpg", "b/1.jpg"], ["*/1.jpg"], ["a/1", "b/1"]),
        (["a/1.jpg", "a/b/1.jpg"], ["a"], ["1", "b/1"]),
        (["a/1.jpg", "a/b/1.jpg"], ["a/b", "a"], ["b/1", "1"]),
        (["a/1.jpg", "a/2.jpg"], ["a/1.jpg", "a", "a/*.jpg"], ["1", "2"]),
        (["a/b/1.jpg"], ["a"], ["b/1"]),
        (["a/1.jpg", "a/1.png", "a/1.jpg.png"], ["a"], ["1.jpg", "1.jpg.png", "1.png"]),
        (["a/1.jpg", "out/masks/1.png"], ["."], ["a/1"]),
        (["photo"], ["photo"], ["photo"]),
        (["a[1].jpg", "a1.jpg"], ["a[1].jpg"], ["a[1]"]),
    ],
)
def test_names_never_meet(tmp_path: Path, files: list[str], given: list[str], names: list[str]) -> None:
    assert names_of(tmp_path, files, given) == names


def test_a_link_to_a_folder_above_has_an_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert names_of(tmp_path, ["a/1.jpg"], ["a"]) == ["1"]


def test_an_overlay_colours_objects_and_names_them(network: Path) -> None:
    labelled = TrainedNetwork(network, device="cpu").label(photo(120, 80))
    image = photo(120, 80)
    drawn = np.array(draw_overlay(image, labelled.ids, labelled.found))
    background = labelled.ids == 0
    pixels = np.array(image)
    assert drawn.shape[0] > 80
    assert np.array_equal(drawn[:80][background], pixels[background])
    assert not np.array_equal(drawn[:80][~background], pixels[~background])
    large = draw_overlay(Image.new("RGB", (2 * SIDE, SIDE)), np.zeros((SIDE, 2 * SIDE), np.uint8), ())
    assert large.width == SIDE
