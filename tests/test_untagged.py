"""Training photos that show none of the classes, and photos with unknown tags."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import BASELINES, Photos, Refusal, run_stage, write_params

from plda.__main__ import path_arguments, stage_function
from plda.adaptation.learner import PUBLISHED, PldaLearner
from plda.data.data_set import DataSet
from plda.masks.cams import Cams
from plda.masks.folder import Masks
from plda.models.backbones import Backbone
from plda.models.baselines import build_baseline

PATHS = {
    "data_set": "data_set", "checkpoints": "checkpoints",
    "cam_backbone": "cams.pt", "segmenter_backbone": "segmenter.pt", "backbone_origins": "origins.json",
    "cam_network": "cam.pt", "cam_history": "cam.csv", "cam_machine": "cam.json", "cams": "cams.npz",
    "boundary_network": "boundary.pt", "boundary_seeds": "seeds.zip", "boundary_history": "boundary.csv",
    "pseudo_masks": "masks", "refined_cams": "refined.npz", "background_scores": "scores.json",
    "training_masks": "relabelled", "training_estimates": "training_estimates.csv",
    "cam_metrics": "cam_metrics.json", "cam_class_scores": "cam_classes.csv", "seed_curve": "curve.csv",
    "segmenter": "network.pt", "segmenter_history": "history.csv", "segmenter_machine": "machine.json",
    "predictions": "predictions", "estimates": "estimates.csv", "metrics": "metrics.json",
    "class_scores": "classes.csv", "summary": "summary.md",
    "page": "report.html",
}  # fmt: skip
STAGES = (
    "download_backbone", "train_cam", "infer_cams", "train_boundary", "make_masks", "evaluate_cams",
    "relabel_masks", "train_segmenter", "predict_masks", "evaluate", "report",
)  # fmt: skip


def run_pipeline(photos: Photos, out: Path, **changes: Any) -> None:
    """Run every stage from index_data to report."""
    assert photos.index(out) == 0
    params = write_params(out / "params.yaml", source="folder", **changes)
    for stage in STAGES:
        flags = path_arguments(stage_function(stage))
        assert run_stage(stage, params, **{flag: out / PATHS[flag] for flag in flags}) == 0


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("classes", ["background\ncat\ndog\n", "background\ncat\n"], ids=["two", "one"])
def test_pipeline_accepts_untagged_and_unknown_photos(photos: Photos, baseline: str, classes: str) -> None:
    """`b` has no class, so its mask is background; `d` has unknown tags: labelled, but not trained on."""
    (photos.folder / "classes.txt").write_text(classes)
    (photos.folder / "d.jpg").write_bytes((photos.folder / "a.jpg").read_bytes())
    photos.rows = ["a.jpg,train,cat,a.png", "b.jpg,train,,", "c.jpg,val,,", "d.jpg,train,?,"]
    photos.write()
    out = photos.folder.parent / "out"
    run_pipeline(
        photos,
        out,
        train_cam__baseline=baseline,
        train_cam__adaptation__enabled=True,
        make_masks__background_score=0.02,
        predict_masks__splits=["train", "val"],
        report__gallery=12,
    )
    data = DataSet(out / "data_set")
    known = data.training
    assert [entry.key for entry in known] == ["a", "b"]
    assert [entry.known for entry in data.entries] == [True, True, True, False]
    assert Cams(out / "cams.npz").read("b").abs().max() == 0
    assert not Masks(out / "masks")(known[1]).any()
    assert Masks(out / "masks")(known[0]).any()
    assert sorted(path.stem for path in (out / "masks").glob("*.png")) == ["a", "b"]
    assert sorted(path.stem for path in (out / "predictions").glob("*.png")) == ["a", "b", "c", "d"]
    estimates = pd.read_csv(out / "estimates.csv")
    assert list(estimates["image"]) == [f"images/{name}.jpg" for name in "abcd"]
    assert estimates["expected_iou"].between(0, 100).all()
    (expected,) = estimates["expected_iou"][estimates["image"] == "images/c.jpg"]  # only val counts
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics.pop("relabelled_masks")["miou"] >= 0
    assert metrics == {"estimate": {"expected_iou": expected}}
    assert not Masks(out / "relabelled")(known[1]).any()
    assert sorted(path.stem for path in (out / "relabelled").glob("*.png")) == ["a", "b"]
    assert f"Expected IoU of the segmentation: {expected:.1f}" in (out / "summary.md").read_text()
    assert json.loads((out / "cam_metrics.json").read_text())["pseudo_masks"]["miou"] >= 0
    page = (out / "report.html").read_text()
    assert "no class</span>" in page
    assert "tags unknown</span>" in page


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("b.jpg,train,?;cat,", ["line 3", "'?'"]),
        ("b.jpg,train,cat;?,", ["line 3", "'?'"]),
    ],
)
def test_index_data_rejects_unknown_together_with_tag(
    photos, tmp_path: Path, refused: Refusal, row, words
) -> None:
    photos.rows[1] = row
    photos.write()
    message = refused(photos.index, tmp_path / "out")
    assert all(word in message for word in words)


@pytest.mark.parametrize("tags", ["", "?"])
def test_index_data_rejects_training_set_without_tags(photos, tmp_path: Path, refused: Refusal, tags) -> None:
    photos.rows = [f"a.jpg,train,{tags},", f"b.jpg,train,{tags},", "c.jpg,val,dog,"]
    photos.write()
    assert "no training image has a tag" in refused(photos.index, tmp_path / "out")


@pytest.mark.parametrize("baseline", BASELINES)
def test_untagged_batch_trains_only_with_tag_loss(baseline: str) -> None:
    torch.manual_seed(0)
    network = build_baseline(baseline, Backbone("resnet10"), 3)
    settings = PUBLISHED.model_copy(update={"reversal": "constant"})
    learner = PldaLearner(network, 3, settings).train()
    losses = learner({"image": torch.randn(2, 3, 64, 64), "tags": torch.zeros(2, 3)}, 0.5)
    losses["loss"].backward()
    assert float(losses["adversary"]) == float(losses["supervision"]) == 0
    assert float(losses["tags"] if "tags" in losses else losses["loss"]) > 0
    gradients = [p.grad for p in network.head.parameters()]
    assert all(np.isfinite(g).all() and g.abs().max() > 0 for g in gradients)


def test_untagged_photos_need_no_true_mask(photos: Photos) -> None:
    photos.rows = ["a.jpg,train,cat,a.png", "b.jpg,train,,", "c.jpg,val,,"]
    photos.write()
    run_pipeline(photos, photos.folder.parent / "out", train_segmenter__supervision="masks")
