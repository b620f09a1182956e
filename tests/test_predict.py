"""A trained network on photos: windows, output names, written files and rejected inputs."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from conftest import ROOT, Refusal, build, encoded, photo, run_stage, write_params
from PIL import ExifTags, Image, ImageOps
from test_training import trainer
from torch.nn import functional as F

from plda.__main__ import main
from plda.data.classes import read_classes
from plda.data.data_set import DataSet
from plda.data.images import encode_image, read_mask
from plda.masks.estimate import read_estimates
from plda.masks.folder import Masks
from plda.models.saved import Architecture, load, read_network, save_network
from plda.models.segmenters import SEGMENTER
from plda.refinement import probabilities
from plda.use import windows
from plda.use.network import TrainedNetwork
from plda.use.overlay import SIDE, draw_overlay
from plda.use.photos import find_photos
from plda.use.windows import enlarged, in_windows
from plda.writers.write import Format

CLASSES = ("background", "cat", "dog")
KINDS = (("masks", "png"), ("overlays", "jpg"), ("labels", "json"))


def saved(path: Path, classes: tuple[str, ...] = CLASSES, long_side: int | None = 64, seed: int = 6) -> Path:
    """Save an untrained network with varied predictions; return its path."""
    torch.manual_seed(seed)
    architecture = Architecture("segmenter", "resnet10", 16, "frozen", "deeplabv2", classes, long_side)
    network = build(architecture)
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
def test_in_windows_matches_whole_image(height: int, width: int) -> None:
    """A function of single pixels gives the same through windows; no window exceeds the limit."""
    image = torch.randint(0, 255, (3, height, width), dtype=torch.uint8)
    seen = []

    def look(part: torch.Tensor) -> torch.Tensor:
        seen.append(part.shape)
        return part.float()[:2] * 2

    bands = list(in_windows(look, image, 20))
    torch.testing.assert_close(torch.cat(bands, dim=1), image.float()[:2] * 2)
    assert max(max(shape[1:]) for shape in seen) <= 20
    assert all(band.shape[1] for band in bands)


def test_windows_overlap_and_weigh_less_at_edges() -> None:
    starts, weights = windows._spread(100, 40)
    assert (starts[0], starts[-1] + 40) == (0, 100)
    assert all(b - a <= 30 for a, b in pairwise(starts))
    second = weights[1][: 40 - (starts[1] - starts[0])]  # the overlap with the first
    assert (second.diff() > 0).all()


@pytest.mark.parametrize("size", [(5, 7), (40, 33), (41, 90), (3, 2)])
def test_enlarged_strips_match_bilinear_interpolation(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "STRIP", 500)
    maps = torch.rand(4, 5, 7)
    strips = list(enlarged(maps, *size))
    expected = F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(torch.cat(strips, dim=1), expected)
    assert len(strips) > 1 or size[0] * size[1] * 4 <= 500


def test_label_matches_predict_masks_stage(drawn: Path, tmp_path: Path) -> None:
    data = DataSet(drawn / "data_set")
    file = saved(tmp_path / "network.pt", data.classes)
    params = write_params(tmp_path / "params.yaml", predict_masks__scales=[1.0, 1.5])
    assert (
        run_stage(
            "predict_masks",
            params,
            data_set=data.folder,
            segmenter=file,
            predictions=tmp_path / "masks",
            estimates=tmp_path / "estimates.csv",
        )
        == 0
    )
    labeller = TrainedNetwork(file, device="cpu", long_side="full", scales=(1.0, 1.5), flip=True)
    entries = data.split("val")
    expected = read_estimates(tmp_path / "estimates.csv", entries)
    for entry in entries:
        labelled = labeller.label(Image.fromarray(data.image(entry).permute(1, 2, 0).numpy()))
        assert labelled.expected_iou == pytest.approx(expected[entry.key], abs=0.01)
        assert np.array_equal(labelled.ids, Masks(tmp_path / "masks")(entry))


def test_label_summary_matches_pixels(network: Path) -> None:
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


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (900, 6)])
def test_label_accepts_photos_of_few_pixels(tmp_path: Path, size: tuple[int, int]) -> None:
    """Uses convnext_tiny, whose kernels do not fit into fewer than 32 pixels."""
    architecture = Architecture("segmenter", "convnext_tiny", 32, "frozen", "lraspp", CLASSES, 64)
    save_network(tmp_path / "network.pt", architecture, build(architecture).state_dict())
    labelled = TrainedNetwork(tmp_path / "network.pt", device="cpu").label(photo(*size))
    assert labelled.ids.shape == size[::-1]


def test_label_resizes_photos_to_training_size(tmp_path: Path, monkeypatch) -> None:
    sizes = []

    def note(_network, _image, size, **_):
        sizes.append(tuple(size))
        return torch.ones(1, 3, *size)

    monkeypatch.setattr(probabilities, "multi_scale", note)
    for noted, asked in ((64, "trained"), (None, "trained"), (64, "full"), (64, 40)):
        file = saved(tmp_path / "n.pt", long_side=noted)
        labelled = TrainedNetwork(file, device="cpu", long_side=asked, refinement={}).label(photo(200, 100))
        assert labelled.ids.shape == (100, 200)
    TrainedNetwork(saved(tmp_path / "n.pt"), device="cpu", refinement={}).label(photo(20, 32))
    assert sizes == [(32, 64), (100, 200), (100, 200), (20, 40), (64, 40)]


def test_train_segmenter_saves_image_size(drawn: Path, tmp_path: Path) -> None:
    """Older network files without this field are still read."""
    params, paths = trainer("train_segmenter", drawn, tmp_path)
    write_params(
        params,
        train_segmenter__supervision="masks",
        train_segmenter__epochs=1,
        train_segmenter__scale=[1.0, 2.0],
    )
    paths["training_masks"] = tmp_path / "none"  # not needed with true masks
    assert run_stage("train_segmenter", params, **paths) == 0
    assert read_network(tmp_path / "network.pt", SEGMENTER)[0].long_side == 96
    content = load(tmp_path / "network.pt")
    del content["architecture"]["long_side"]
    torch.save(content, tmp_path / "old.pt")
    assert read_network(tmp_path / "old.pt", SEGMENTER)[0].long_side is None


def test_predict_applies_exif_orientation(network: Path, tmp_path: Path) -> None:
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


def test_predict_writes_expected_files(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
        assert {float(row["expected_iou"]) for row in mine} == {about["expected_iou"]}
        assert 0 < about["expected_iou"] <= 100
        assert [(r["class"], float(r["share"])) for r in mine] == [
            (each["class"], each["share"]) for each in about["classes"]
        ]
    assert predict(folder, network=network, out=out, flags=("--overwrite", "--no-overlays")) == 0
    assert "3 photos labelled" in capsys.readouterr().err, "its own overlays are no photos"


def test_predict_allows_only_given_tags(network: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "garden").mkdir(parents=True)
    for i, name in enumerate(("a", "b", "c", "garden/d")):
        (folder / f"{name}.jpg").write_bytes(encoded(photo(80, 50, i)))
    table = folder / "tags.csv"
    table.write_text("image,tags\na.jpg,cat\nb.jpg,\nc.jpg,?\n")
    free, out = tmp_path / "free", tmp_path / "out"
    plain = ("--no-refinement",)
    assert predict(folder, network=network, out=free, flags=plain) == 0
    assert predict(folder, network=network, out=out, flags=(*plain, "--tags", str(table))) == 0
    ids = {name: (read_ids(free, name), read_ids(out, name)) for name in ("a", "b", "c", "garden/d")}
    assert (ids["a"][0] == 2).any() and not (ids["a"][1] == 2).any()
    assert (ids["a"][1] == 1)[ids["a"][0] == 1].all()  # the class was the likeliest of all before
    assert not ids["b"][1].any() and ids["b"][0].any()
    for unknown in ("c", "garden/d"):
        assert (ids[unknown][0] == ids[unknown][1]).all() and ids[unknown][0].any()


def read_ids(out: Path, name: str) -> np.ndarray:
    return read_mask((out / f"masks/{name}.png").read_bytes())


@pytest.mark.parametrize(
    ("table", "words"),
    {
        "image,tags\na.jpg,cat\na.jpg,dog\n": "line 3: image: duplicate",
        "image,tags\na.jpg,cow\n": "line 2: tags: must be classes of the network (cat, dog), got 'cow'",
        "image,tags\na.jpg,background\n": "got 'background'",
        "photo,tags\na.jpg,cat\n": "tags.csv: ",
    }.items(),
)
def test_predict_rejects_bad_tags(
    network: Path, tmp_path: Path, refused: Refusal, table: str, words: str
) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(photo(40, 30)))
    (tmp_path / "tags.csv").write_text(table)
    flags = ("--tags", str(tmp_path / "tags.csv"))
    message = refused(predict, tmp_path / "a.jpg", network=network, out=tmp_path / "out", flags=flags)
    assert words in message
    assert not (tmp_path / "out").exists()


def test_predict_names_unreadable_photos_and_labels_others(
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
    assert "2 of 3 photos cannot be labelled" in message
    assert [p.name for p in (tmp_path / "out" / "masks").iterdir()] == ["b.png"]
    assert "b.jpg" in (tmp_path / "out" / "summary.csv").read_text()


def test_predict_rejects_invalid_input_before_writing(
    network: Path, tmp_path: Path, refused: Refusal
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.jpg").write_bytes(encoded(photo(40, 30)))
    out = tmp_path / "out"
    cam = Architecture("cam", "resnet10", 16, "trained", "cam", CLASSES)
    save_network(tmp_path / "cam.pt", cam, build(cam).state_dict())
    one = tmp_path / "a.jpg"
    for photos, file, words in (
        ([tmp_path / "none.jpg"], network, ["none.jpg: no such file"]),
        ([tmp_path / "*.webp", tmp_path / "empty"], network, ["*.webp: no such file", "empty: no photo"]),
        ([one], tmp_path / "none.pt", ["none.pt: is missing"]),
        ([one], one, ["a.jpg: refused"]),
        ([one], tmp_path / "cam.pt", ["cam.pt: architecture.kind: must be 'segmenter', got 'cam'"]),
    ):
        message = refused(predict, *photos, network=file, out=out)
        assert all(word in message for word in words), message
        assert not out.exists()
    out.write_text("")
    assert "out: is a file" in refused(predict, one, network=network, out=out)
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "mine.txt").write_text("")
    assert "kept: exists and is not empty" in refused(predict, one, network=network, out=kept)
    assert f"{tmp_path}: holds the photos" in refused(predict, tmp_path, network=network, out=tmp_path)
    if not torch.cuda.is_available():
        flags = ("--device", "cuda")
        assert "device: this machine has no 'cuda'" in refused(
            predict, one, network=network, out=tmp_path / "new", flags=flags
        )


@pytest.mark.parametrize("flag", ["--scales=0", "--scales=1,x", "--window=8", "--long-side=-1", "--scales=9"])
def test_predict_reports_invalid_flag_as_usage_error(
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
def test_find_photos_gives_unique_names(
    tmp_path: Path, files: list[str], given: list[str], names: list[str]
) -> None:
    assert names_of(tmp_path, files, given) == names


def test_find_photos_stops_at_link_to_parent(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert names_of(tmp_path, ["a/1.jpg"], ["a"]) == ["1"]


def test_draw_overlay_colours_objects_and_adds_legend(network: Path) -> None:
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


def times(out: Path) -> dict[str, int]:
    return {name: (out / name).stat().st_mtime_ns for name in written(out) if name.startswith("masks/")}


def test_predict_resumes_after_failed_photos(network: Path, tmp_path: Path, refused: Refusal) -> None:
    """Finished photos are kept; the table covers all photos."""
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(encoded(photo(60, 40, number)))
    (folder / "1.jpg").write_bytes(b"")
    assert "1 of 3 photos" in refused(predict, folder, network=network, out=out)
    first = times(out)
    assert list(first) == ["masks/0.png", "masks/2.png"]
    (out / "masks" / ".x.png.1234.tmp").write_bytes(b"half")
    words = refused(predict, folder, network=network, out=out, flags=("--flip",))
    assert "unfinished" in words and "flip" in words

    (folder / "1.jpg").write_bytes(encoded(photo(60, 40, 1)))
    (folder / "2.jpg").write_bytes(encoded(photo(60, 40, 7)))  # changed, so labelled again
    assert predict(folder, network=network, out=out) == 0
    second = times(out)
    assert list(second) == ["masks/0.png", "masks/1.png", "masks/2.png"]
    assert first["masks/0.png"] == second["masks/0.png"]
    assert first["masks/2.png"] < second["masks/2.png"]
    whole = tmp_path / "whole"
    assert predict(folder, network=network, out=whole) == 0
    assert (out / "summary.csv").read_bytes() == (whole / "summary.csv").read_bytes()
    assert "not empty" in refused(predict, folder, network=network, out=out)
    assert predict(folder, network=network, out=out, flags=("--overwrite",)) == 0
    assert times(out)["masks/0.png"] > second["masks/0.png"]


def test_predict_resumes_after_signals(network: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02}.jpg").write_bytes(encoded(photo(500, 400, number)))
    command = [sys.executable, "-m", "plda", "predict", str(folder), "--network", str(network)]
    command += ["--out", str(out), "--device", "cpu", "--long-side", "full"]
    kept: dict[str, int] = {}
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        next_photo = out / f"masks/{len(kept) + 2:02}.png"
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as running:
            while not next_photo.exists() and running.poll() is None:
                time.sleep(0.02)
            running.send_signal(sign)
            _, words = running.communicate()
        if sign == signal.SIGINT:
            assert running.returncode == 130
            (line,) = words.splitlines()
            assert line.startswith("plda predict: stopped by Ctrl-C after ")
            assert not [name for name in written(out) if name.endswith(".tmp")]
        assert not (out / "summary.csv").exists()
        before, kept = kept, {name: at for name, at in times(out).items() if not name.endswith(".tmp")}
        assert len(before) + 2 <= len(kept) < 40
        assert repeated(before, kept) <= 1  # the interrupted photo
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    assert len(times(out)) == 40
    assert repeated(kept, times(out)) <= 1
    assert len({row["photo"] for row in csv.DictReader((out / "summary.csv").open())}) == 40


def repeated(before: dict[str, int], after: dict[str, int]) -> int:
    """Return how many files were written again."""
    return sum(after[name] != at for name, at in before.items())


def test_predict_labels_other_photos_after_any_error(
    network: Path, tmp_path: Path, refused: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    errors = {60: MemoryError(), 61: RecursionError("deep"), 62: KeyError("x"), 63: SystemError("y")}
    for width, name in zip((59, *errors, 64), "abcdez", strict=True):
        (folder / f"{name}.jpg").write_bytes(encoded(photo(width, 40)))
    os.mkfifo(folder / "pipe.jpg")
    (folder / "link.jpg").symlink_to("nowhere")
    (folder / "zero.jpg").symlink_to("/dev/zero")

    def thumbnail(image: Image.Image, size: tuple[int, int]) -> None:
        if image.width in errors:
            raise errors[image.width]
        assert max(image.size) <= max(size)

    monkeypatch.setattr(Image.Image, "thumbnail", thumbnail)  # Pillow may raise any exception
    message = refused(predict, folder, network=network, out=out)
    for name in ("b.jpg", "c.jpg", "d.jpg", "e.jpg", "pipe.jpg", "link.jpg", "zero.jpg"):
        assert f"error: {folder}/{name}: " in message
    assert "7 of 9 photos" in message
    assert list(times(out)) == ["masks/a.png", "masks/z.png"]


def test_find_photos_names_folder_without_permission(tmp_path: Path) -> None:
    for name in ("a.jpg", "closed/b.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    (tmp_path / "photos" / "closed").chmod(0)
    if os.geteuid() == 0:  # root can list any folder: switch to another user
        for path in (tmp_path, *tmp_path.parents):
            if path != Path("/") and path.stat().st_uid == 0 and path.is_relative_to("/tmp"):
                path.chmod(path.stat().st_mode | 0o055)
        os.seteuid(65534)
    try:
        found = find_photos([str(tmp_path / "photos")], tmp_path / "out")
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
    assert [(p.name, p.fault) for p in found] == [
        ("a", ""),
        ("closed", "cannot be listed: Permission denied"),
    ]


def test_predict_stops_on_full_disk_and_resumes(network: Path, tmp_path: Path, refused: Refusal) -> None:
    """Uses a mounted disk of 32 kB, then enlarges it; skipped if this process may not mount one."""
    folder, out = tmp_path / "photos", tmp_path / "disk" / "out"
    for each in (folder, out.parent):
        each.mkdir()
    for name in "abcd":
        (folder / f"{name}.jpg").write_bytes(encoded(photo(60, 40)))
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(out.parent)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        message = refused(predict, folder, network=network, out=out)
        assert "no space left on the disk" in message
        assert len(message.splitlines()) == 1
        first = times(out)
        finished = [path.stem for path in (out / "labels").iterdir()]
        assert finished
        subprocess.run(["mount", "-o", "remount,size=1m", str(out.parent)], check=True)
        assert predict(folder, network=network, out=out) == 0
        assert len(times(out)) == 4
        assert all(times(out)[f"masks/{name}.png"] == first[f"masks/{name}.png"] for name in finished)
    finally:
        subprocess.run(["umount", str(out.parent)], check=True)


@pytest.mark.parametrize("name", ["b" * 246 + ".jpg", "b" * 251 + ".jpg", "ä" * 125 + ".jpg", "b" * 255])
def test_predict_accepts_longest_file_names(network: Path, tmp_path: Path, name: str) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for each in (name, "c" + name[1:], "a.jpg"):
        (folder / each).write_bytes(encoded(photo(60, 40)))
    given = [folder / each for each in (name, "c" + name[1:], "a.jpg")]
    assert predict(*given, network=network, out=out) == 0
    assert len(times(out)) == 3
    assert len({row["photo"] for row in csv.DictReader((out / "summary.csv").open())}) == 3


@pytest.mark.parametrize(
    ("files", "pattern", "names"),
    [
        (["trip [2024]/a.jpg"], "trip [2024]/*.jpg", ["a"]),
        (["trip [2024]/x/a.jpg"], "trip [2024]/**/*.jpg", ["a"]),
        (["IMG[1]a.jpg", "IMG[2]a.jpg"], "IMG[1]*.jpg", ["IMG[1]a"]),
        (["a/1.jpg", "b/2.jpg", "[ab]/3.jpg"], "[ab]/*.jpg", ["3"]),
        (["a/1.jpg", "b/2.jpg"], "[ab]/*.jpg", ["a/1", "b/2"]),
        (["a*/1.jpg", "ab/2.jpg"], "a*/*.jpg", ["1"]),
    ],
)
def test_find_photos_accepts_brackets_in_names(
    tmp_path: Path, files: list[str], pattern: str, names: list[str]
) -> None:
    assert names_of(tmp_path, files, [pattern]) == names


def test_label_together_matches_label(network: Path) -> None:
    """Batches of one input size, with and without tags, in one window or several, give equal ids."""
    images = [photo(90, 60, 1), photo(180, 120, 2), photo(90, 60, 3)]
    sizes = [(90, 60), (180, 120), (300, 200)]
    tags = [None, ("dog",), ()]
    for window in (768, 32):
        labeller = TrainedNetwork(network, device="cpu", window=window, precision="32")
        assert {labeller.input_size(image) for image in images} == {(43, 64)}
        together = labeller.label_together(images, sizes=sizes, tags=tags)
        for image, size, own, labelled in zip(images, sizes, tags, together, strict=True):
            alone = labeller.label(image, size=size, confidence=False, tags=own)
            assert np.array_equal(labelled.ids, alone.ids)
            assert labelled.expected_iou == pytest.approx(alone.expected_iou, abs=1e-3)
            assert [one.id for one in labelled.found] == [one.id for one in alone.found]
        assert not together[2].ids.any() and set(np.unique(together[1].ids)) <= {0, 2}
        assert together[0].ids.any()


def tree(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in written(folder)}


@pytest.mark.parametrize("format", get_args(Format))
def test_predict_writes_the_data_set_that_labels_writes(network: Path, tmp_path: Path, format: str) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    for number, name in enumerate(("b.png", "a.jpg", "garden/a.jpg")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(photo(90, 60, number), {"j": "JPEG", "p": "PNG"}[name[-3]]))
    assert predict(folder, network=network, out=out, flags=("--format", format)) == 0
    assert not (out / ".predict.json").exists()
    command = ["labels", str(out), "--format", format, "--photos", str(folder)]
    assert main([*command, "--out", str(tmp_path / "labels")]) == 0
    assert tree(out / format) == tree(tmp_path / "labels") != {}


def test_predict_refuses_full_data_set_folder_before_labelling(
    network: Path, tmp_path: Path, refused: Refusal
) -> None:
    (tmp_path / "photo.jpg").write_bytes(encoded(photo(90, 60)))
    (tmp_path / "out/coco").mkdir(parents=True)
    (tmp_path / "out/coco/mine").write_bytes(b"")
    flags = ("--overwrite", "--format", "coco")
    said = refused(predict, tmp_path / "photo.jpg", network=network, out=tmp_path / "out", flags=flags)
    assert "out/coco: must be a new or empty folder, got files" in said
    assert written(tmp_path / "out") == ["coco/mine"]
