"""Each kind of bad input: exit status 2, a message with file and field, and no partial output."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, Photos, Refusal, build, encoded, photo, run_stage, write_params
from PIL import Image

LINE_2, LINE_3, LINE_4 = ("tags.csv, line 2", "tags.csv, line 3", "tags.csv, line 4")


def spoil_missing_image(p: Photos) -> None:
    (p.folder / "a.jpg").unlink()


def spoil_unreadable_image(p: Photos) -> None:
    (p.folder / "a.jpg").write_bytes(b"not an image")


def spoil_truncated_jpeg(p: Photos) -> None:
    whole = encoded(photo(200, 200))
    (p.folder / "b.jpg").write_bytes(whole[: len(whole) // 2])


def spoil_unknown_tag(p: Photos) -> None:
    p.rows[1] = "b.jpg,train,dog;horse,"


def spoil_background_tag(p: Photos) -> None:
    p.rows[1] = "b.jpg,train,background,"


def spoil_tag_twice(p: Photos) -> None:
    p.rows[1] = "b.jpg,train,dog;dog,"


def spoil_duplicate_row(p: Photos) -> None:
    p.rows[1] = p.rows[0]


def spoil_same_name(p: Photos) -> None:
    (p.folder / "a.webp").write_bytes(encoded(photo(40, 30), "WEBP"))
    p.rows[1] = "a.webp,train,cat,"


def spoil_outside(p: Photos) -> None:
    p.rows[1] = "../b.jpg,train,cat,"


def spoil_empty_name(p: Photos) -> None:
    p.rows[1] = ",train,cat,"


def spoil_name_of_a_dot(p: Photos) -> None:
    p.rows[1] = "./,train,cat,"


def spoil_mask_size(p: Photos) -> None:
    (p.folder / "a.png").write_bytes(encoded(Image.new("L", (40, 31)), "PNG"))


def spoil_mask_ids(p: Photos) -> None:
    (p.folder / "a.png").write_bytes(encoded(Image.new("L", (40, 30), 3), "PNG"))


def spoil_mask_mode(p: Photos) -> None:
    (p.folder / "a.png").write_bytes(encoded(Image.new("F", (40, 30)), "TIFF"))


def spoil_missing_mask(p: Photos) -> None:
    (p.folder / "a.png").unlink()


def spoil_split_name(p: Photos) -> None:
    p.rows[1] = "b.jpg,dev,cat,"


def spoil_empty_split(p: Photos) -> None:
    p.rows[2] = "c.jpg,train,dog,"


def spoil_no_rows(p: Photos) -> None:
    p.rows = []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_missing_image, [LINE_2, "field image", "a.jpg", "No such file"]),
        (spoil_unreadable_image, [LINE_2, "field image", "a.jpg", "cannot be decoded"]),
        (spoil_truncated_jpeg, [LINE_3, "field image", "b.jpg", "truncated"]),
        (spoil_unknown_tag, [LINE_3, "field tags", "'horse' is not in the class list"]),
        (spoil_background_tag, [LINE_3, "field tags", "'background' cannot be a tag"]),
        (spoil_tag_twice, [LINE_3, "field tags", "duplicate tag 'dog'"]),
        (spoil_duplicate_row, [LINE_3, "field image", "duplicate image 'a.jpg'", LINE_2]),
        (spoil_same_name, [LINE_3, "field image", "duplicate image 'a.webp'", LINE_2]),
        (spoil_outside, [LINE_3, "field image", "inside the folder"]),
        (spoil_empty_name, [LINE_3, "field image", "is empty"]),
        (spoil_name_of_a_dot, [LINE_3, "field image", "is empty"]),
        (spoil_mask_size, [LINE_2, "field mask", "a.png", "40x30", "40x31"]),
        (spoil_mask_ids, [LINE_2, "field mask", "a.png", "id 3", "0 to 2"]),
        (spoil_mask_mode, [LINE_2, "field mask", "a.png", "mode F"]),
        (spoil_missing_mask, [LINE_2, "field mask", "a.png", "No such file"]),
        (spoil_split_name, [LINE_3, "field split", "train, val, test, got 'dev'"]),
        (spoil_empty_split, ["tags.csv", "field split", "'val'"]),
        (spoil_no_rows, ["tags.csv", "field split", "'train'", "'val'"]),
    ],
    ids=lambda value: value.__name__.removeprefix("spoil_") if callable(value) else "",
)
def test_index_data_rejects_invalid_folder(
    photos: Photos, tmp_path: Path, refused: Refusal, spoil, words: list[str]
) -> None:
    spoil(photos)
    photos.write()
    message = refused(photos.index, tmp_path / "out")
    for word in words:
        assert word in message
    assert list((tmp_path / "out").iterdir()) == []


def test_index_data_reports_all_errors_at_once(photos: Photos, tmp_path: Path, refused: Refusal) -> None:
    photos.rows = ["a.jpg,train,horse,", "x.jpg,train,cat,", "c.jpg,dev,dog,"]
    photos.write()
    message = refused(photos.index, tmp_path / "out")
    assert all(word in message for word in ("'horse'", "x.jpg", "'dev'"))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("tags.csv", None, ["tags.csv", "no such file"]),
        ("tags.csv", "image,tags\na.jpg,cat\n", ["tags.csv", "header", "split", "'image,tags'"]),
        ("tags.csv", "", ["tags.csv", "is empty"]),
        ("classes.txt", None, ["classes.txt", "no such file"]),
        ("classes.txt", "cat\ndog\n", ["classes.txt", "line 1", "background"]),
        (
            "classes.txt",
            "background\ncat\ncat\n",
            ["classes.txt", "line 3", "duplicate class 'cat'", "line 2"],
        ),
        ("classes.txt", "background\n", ["classes.txt", "must have 1 to 254 classes"]),
    ],
)
def test_index_data_rejects_invalid_table(
    photos: Photos, tmp_path: Path, refused: Refusal, name: str, text: str | None, words: list[str]
) -> None:
    (photos.folder / name).unlink()
    if text is not None:
        (photos.folder / name).write_text(text)
    message = refused(photos.index, tmp_path / "out")
    assert all(word in message for word in words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train_cam__leaning_rate": 0.1}, ["train_cam.leaning_rate", "unknown key"]),
        ({"nonsense": {}}, ["nonsense", "unknown key"]),
        ({"train_cam__lr": "fast"}, ["train_cam.lr", "valid number", "'fast'"]),
        ({"train_cam__epochs": 1.5}, ["train_cam.epochs", "integer"]),
        ({"train_cam__epochs": 0}, ["train_cam.epochs", "greater than or equal to 1"]),
        ({"train_cam__epochs": True}, ["train_cam.epochs", "integer"]),
        ({"train_cam__output_stride": 12}, ["train_cam.output_stride", "8, 14, 16 or 32"]),
        ({"train_cam__scale": [1.5, 0.5]}, ["train_cam", "smaller factor must come first"]),
        ({"make_masks__background_score": 1.5}, ["make_masks.background_score"]),
        ({"make_masks__refinement": ["pamr", "blur"]}, ["make_masks.refinement.1: ", "'blur'"]),
        ({"make_masks__refinement": ["pamr", "pamr"]}, ["make_masks.refinement: duplicate step"]),
        ({"make_masks__refinement": ["crf", "pamr"]}, ["make_masks.refinement: crf must come last"]),
        (
            {"make_masks__refinement": ["regions", "random_walk"], "train_boundary__enabled": True},
            ["make_masks.refinement: random_walk must come before regions"],
        ),
        (
            {"make_masks__regions": None, "make_masks__refinement": ["regions"]},
            ["make_masks.regions: is missing"],
        ),
        ({"make_masks__pamr": None}, ["make_masks.pamr: is missing, but refinement contains it"]),
        ({"train_boundary__enabled": False}, ["random_walk needs the boundary network"]),
        ({"train_boundary__seeds__margin": -0.1}, ["train_boundary.seeds.margin"]),
        ({"train_boundary__seeds__refinement": ["random_walk"]}, ["train_boundary.seeds.refinement.0"]),
        (
            {"download_backbone__cams__name": "resnet19"},
            ["cams.name: must be a network of timm", "resnet18"],
        ),
        (
            {"train_cam__freeze": "all", "train_cam__adaptation__enabled": True},
            ["train_cam.adaptation.adversary: must be 0 with freeze: all"],
        ),
        ({"infer_cams__scales": []}, ["infer_cams.scales", "at least 1 item"]),
        ({"infer_cams": {"scales": [1.0]}}, ["infer_cams.flip", "is missing"]),
    ],
    ids=str,
)
def test_stage_rejects_invalid_params(tmp_path: Path, refused: Refusal, change, words: list[str]) -> None:
    params = write_params(tmp_path / "params.yaml", **change)
    out = tmp_path / "out"
    message = refused(
        run_stage, "download_backbone", params, cam_backbone=out, segmenter_backbone=out, backbone_origins=out
    )
    assert str(params) in message
    assert all(word in message for word in words)
    assert not out.exists()


def test_stage_rejects_unreadable_params_file(tmp_path: Path, refused: Refusal) -> None:
    out = tmp_path / "out"
    (tmp_path / "params.yaml").write_text("seed: [1\n")
    for name, words in (("params.yaml", "not YAML"), ("absent.yaml", "no such file")):
        message = refused(
            run_stage,
            "download_backbone",
            tmp_path / name,
            cam_backbone=out,
            segmenter_backbone=out,
            backbone_origins=out,
        )
        assert name in message
        assert words in message


def test_snakemake_rejects_invalid_params_before_first_job(tmp_path: Path) -> None:
    """The rules validate the whole params.yaml when they are loaded."""
    for name in ("Snakefile", "dvc.yaml", "workflow", "plda", "data", "review"):
        (tmp_path / name).symlink_to(ROOT / name)
    write_params(tmp_path / "params.yaml", report__gallery=-1)
    run = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert "params.yaml: report.gallery: input should be greater than or equal to 0" in run.stderr
    assert not (tmp_path / "results").exists()


class Bomb:
    """An object that runs code when it is unpickled, as in a malicious checkpoint."""

    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_stages_refuse_checkpoint_that_could_run_code(
    drawn: Path, tmp_path: Path, refused: Refusal, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bomb = tmp_path / "bomb.pt"
    torch.save({"weights": Bomb()}, bomb)
    plain = tmp_path / "plain.pt"
    plain.write_bytes(pickle.dumps(Bomb()))
    params = write_params(tmp_path / "params.yaml")
    for file in (bomb, plain):
        message = refused(
            run_stage,
            "infer_cams",
            params,
            data_set=drawn / "data_set",
            cam_network=file,
            cams=tmp_path / "cams.npz",
        )
        assert f"{file}: refused" in message
        assert "could run code" in message
    for field in ("cams", "segmenter"):  # the same file as initial weights
        params = write_params(tmp_path / "params.yaml", **{f"download_backbone__{field}__weights": str(bomb)})
        message = refused(
            run_stage,
            "download_backbone",
            params,
            cam_backbone=tmp_path / "1.pt",
            segmenter_backbone=tmp_path / "2.pt",
            backbone_origins=tmp_path / "origins.json",
        )
        assert f"{bomb}: refused" in message
    assert not (tmp_path / "exploded").exists()


def test_infer_cams_rejects_network_of_other_classes_or_kind(
    drawn: Path, tmp_path: Path, refused: Refusal
) -> None:
    from plda.models.saved import Architecture, save_network

    for kind, classes, words in (
        ("cam", ("background", "car"), "field classes: trained for background, car"),
        ("segmenter", ("background", "car"), "architecture.kind: must be 'cam', got 'segmenter'"),
    ):
        head = {"cam": "seam", "segmenter": "lraspp"}[kind]
        architecture = Architecture(kind, "resnet10", 16, "trained", head, classes)
        save_network(tmp_path / "n.pt", architecture, build(architecture).state_dict())
        message = refused(
            run_stage,
            "infer_cams",
            write_params(tmp_path / "params.yaml"),
            data_set=drawn / "data_set",
            cam_network=tmp_path / "n.pt",
            cams=tmp_path / "cams.npz",
        )
        assert f"n.pt: {words}" in message


def test_index_data_reports_missing_write_permission(
    photos: Photos, tmp_path: Path, refused: Refusal
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o555)
    if os.geteuid() == 0:  # root can write anywhere: switch to another user
        for path in (tmp_path, *tmp_path.parents):
            if path != Path("/") and path.stat().st_uid == 0 and path.is_relative_to("/tmp"):
                path.chmod(path.stat().st_mode | 0o055)
        photos.index(tmp_path / "warm")  # import all lazily imported modules first
        os.seteuid(65534)
    try:
        message = refused(photos.index, out)
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
    assert "data_set: cannot be written: no write permission" in message
    assert list(out.iterdir()) == []


def test_stages_report_full_disk(photos: Photos, tmp_path: Path, refused: Refusal) -> None:
    """Uses a mounted disk of 64 kB; skipped if this process may not mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True
    )
    if mount.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
        (photos.folder / "b.jpg").write_bytes(encoded(Image.fromarray(noise), quality=95))
        message = refused(photos.index, disk)
        assert "data_set: needs 0.1 MB, only 0.1 MB are free on the disk" in message
        # the disk fills up during the write
        message = refused(
            run_stage,
            "download_backbone",
            write_params(tmp_path / "params.yaml"),
            cam_backbone=disk / "1.pt",
            segmenter_backbone=disk / "2.pt",
            backbone_origins=disk / "origins.json",
        )
        assert "1.pt: cannot be written: no space left on the disk" in message
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
