"""The archive for VOC's evaluation server: layout, colours, determinism and error messages."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Refusal, write_params
from PIL import Image

from plda.data.data_set import write_data_set
from plda.data.images import VOID
from plda.data.index import Entry, write_index
from plda.masks.folder import mask_path, write_mask
from workflow.submission import CLASSES, FOLDER, colour_map, main

TEST = ("2008_000006", "2011_003256")


def entry(name: str, split: str) -> Entry:
    return Entry(f"images/{name}.jpg", split, ("cat",), "", "", 50, 37)


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Return the command's valid inputs, which a test may corrupt, and its output path."""
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path / "params.yaml")
    paths = {name: tmp_path / name for name in ("data_set", "predictions")}
    entries = [entry("2007_000033", "val"), *(entry(name, "test") for name in TEST)]
    write_data_set(paths["data_set"], CLASSES, ((each, {}) for each in entries))
    random = np.random.default_rng(0)
    for each in entries:
        write_mask(paths["predictions"], each, random.integers(0, 21, (37, 50), np.uint8))
    return paths | {"submission": tmp_path / "sent" / "VOC2012_comp6.tar.gz"}


def run(paths: dict[str, Path]) -> int:
    return main([text for name, path in paths.items() for text in (f"--{name.replace('_', '-')}", str(path))])


def test_submission_has_layout_of_voc_server(
    paths: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(paths) == 0
    assert "2 masks; VOC 2012's test set has 1456 images" in capsys.readouterr().out
    with tarfile.open(paths["submission"], "r:gz") as archive:
        files = {each.name: archive.extractfile(each) for each in archive.getmembers()}
        assert list(files) == [f"results/VOC2012/Segmentation/comp6_test_cls/{name}.png" for name in TEST]
        for name in TEST:
            content = files[f"{FOLDER}/{name}.png"]
            assert content is not None
            sent = Image.open(io.BytesIO(content.read()))
            made = Image.open(mask_path(paths["predictions"], entry(name, "test")))
            assert sent.mode == "P"
            assert np.array_equal(np.asarray(sent), np.asarray(made))
            assert sent.getpalette() == colour_map().ravel().tolist()


def test_colour_map_matches_voc() -> None:
    colours = colour_map()
    assert colours.shape == (256, 3)
    by_class = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 8: (64, 0, 0), 15: (192, 128, 128),
                20: (0, 64, 128), VOID: (224, 224, 192)}  # fmt: skip
    assert {number: tuple(colours[number].tolist()) for number in by_class} == by_class


def test_submission_is_deterministic(paths: dict[str, Path]) -> None:
    assert run(paths) == 0
    first = paths["submission"].read_bytes()
    for file in paths["predictions"].iterdir():
        os.utime(file, (0, 0))
    again = paths | {"submission": paths["submission"].with_name("again.tar.gz")}
    assert run(again) == 0
    assert again["submission"].read_bytes() == first


def spoil_classes(paths: dict[str, Path]) -> None:
    (paths["data_set"] / "classes.txt").write_text("background\ncat\ndog\n")


def spoil_order_of_classes(paths: dict[str, Path]) -> None:
    (paths["data_set"] / "classes.txt").write_text("\n".join([*CLASSES[:-2], *CLASSES[:-3:-1]]))


def spoil_split(paths: dict[str, Path]) -> None:
    write_index(paths["data_set"] / "index.csv", [entry("2007_000033", "val")])


def spoil_prediction(paths: dict[str, Path]) -> None:
    mask_path(paths["predictions"], entry(TEST[1], "test")).unlink()


def spoil_ids(paths: dict[str, Path]) -> None:
    write_mask(paths["predictions"], entry(TEST[1], "test"), np.full((37, 50), VOID, np.uint8))


def spoil_size(_: dict[str, Path]) -> None:
    write_params(Path("params.yaml"), index_data__long_side=320)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            spoil_classes,
            ["/classes.txt: must be VOC's classes, in this order: background, aeroplane, "],
        ),
        (spoil_order_of_classes, ["/classes.txt: must be VOC's classes"]),
        (spoil_split, ["data_set/index.csv: field split: no image has split 'test'"]),
        (spoil_prediction, ["2011_003256.png: is missing", "predict_masks.splits must contain test"]),
        (spoil_ids, ["2011_003256.png: class ids: got 255, must be 0 to 20"]),
        (spoil_size, ["params.yaml: index_data.long_side: ", "own size"]),
    ],
    ids=lambda value: value.__name__.removeprefix("spoil_") if callable(value) else "",
)
def test_submission_rejects_invalid_inputs(
    paths: dict[str, Path], refused: Refusal, spoil, words: list[str]
) -> None:
    spoil(paths)
    message = refused(run, paths)
    assert all(word in message for word in words)
    assert not paths["submission"].exists()


def test_submission_rule_packs_predictions_of_main() -> None:
    command = ["--dry-run", "--forceall", "--printshellcmds", "submission"]
    plan = subprocess.run(
        [sys.executable, "-m", "snakemake", *command], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert (
        "python -m workflow.submission --data-set results/main/index_data/data_set "
        "--predictions results/main/predict_masks/masks "
        "--submission results/main/submission/VOC2012_comp6.tar.gz 2>&1 | tee -i logs/submission.log"
    ) in plan
    assert "rule evaluate" not in plan
