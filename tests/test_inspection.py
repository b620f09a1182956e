"""Inspection of a network after every epoch: source and target pixels, and their features."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import run_stage, write_params

from plda.adaptation.domains import IGNORED, SOURCE, TARGET, confident, domain_labels, erase
from plda.data.data_set import DataSet
from plda.data.datasets import tag_vector
from plda.data.images import VOID
from plda.data.transforms import unit
from plda.models.backbones import Backbone
from plda.models.cam import CamNetwork
from plda.scoring.summary import last_inspection
from plda.training.inspection import DomainCounts, Inspection, domain_features, evenly, proxy_a_distance


def test_domain_counts_match_manual_scores() -> None:
    counts = DomainCounts()
    labels = torch.tensor([[[SOURCE, TARGET], [IGNORED, TARGET]]])
    truth = np.array([[2, 2], [2, 0]], np.uint8)
    counts.add(labels, [2], truth)
    assert counts.scores() == {
        "source": 25.0,
        "source_precision": 100.0,
        "source_recall": 33.33,
        "target": 50.0,
        "target_precision": 50.0,
        "target_recall": 33.33,
    }
    two = torch.tensor([[[SOURCE, IGNORED]], [[TARGET, SOURCE]]])  # two classes; the first pixel is of both
    counts = DomainCounts()
    counts.add(two, [1, 2], np.array([[1, 1, VOID, VOID]], np.uint8))
    scores = counts.scores()
    assert (scores["source"], scores["target"]) == (100.0, 50.0)
    assert (scores["source_precision"], scores["target_precision"]) == (100.0, 0.0)
    assert scores["source_recall"] == 100.0


def test_domain_counts_without_masks_give_only_fractions() -> None:
    counts = DomainCounts()
    counts.add(torch.full((1, 2, 2), TARGET), [1], None)
    assert counts.scores() == {"source": 0.0, "target": 100.0}


def domains(distance: float, images: int = 20, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return source and target features; their means differ by `distance` standard deviations on one axis."""
    random = torch.Generator().manual_seed(seed)
    sides = torch.tensor([1.0] * 30 + [-1.0] * 10, dtype=torch.float64)  # 3 sources per target
    axis = torch.eye(8, dtype=torch.float64)[3]
    return [
        (torch.randn(40, 8, generator=random).double() + distance / 2 * sides[:, None] * axis, sides)
        for _ in range(images)
    ]


def test_proxy_a_distance_matches_two_normal_distributions() -> None:
    assert abs(proxy_a_distance(domains(0.0))) < 0.25
    assert proxy_a_distance(domains(20.0)) == 2.0
    # two unit normals at distance 2: the lowest error is Phi(-1) = 0.1587
    assert proxy_a_distance(domains(2.0, images=200)) == pytest.approx(2 * (1 - 2 * 0.1587), abs=0.06)


def test_proxy_a_distance_needs_both_domains() -> None:
    sources = [(x[d > 0], d[d > 0]) for x, d in domains(1.0)]
    assert math.isnan(proxy_a_distance(sources))
    assert math.isnan(proxy_a_distance(domains(1.0, images=1)))


def test_domain_features_list_source_first() -> None:
    features = torch.arange(12.0).view(1, 3, 2, 2)
    labels = torch.tensor([[[[SOURCE, TARGET], [IGNORED, IGNORED]], [[TARGET, TARGET], [TARGET, IGNORED]]]])
    rows, sides = domain_features(features, labels)
    assert sides.tolist() == [1, -1, -1]
    assert rows.tolist() == [[0, 4, 8], [1, 5, 9], [2, 6, 10]]


def test_evenly_spreads_images() -> None:
    assert evenly(range(10), 4) == [0, 2, 5, 7]  # type: ignore[arg-type,comparison-overlap]
    assert evenly(range(3), 8) == [0, 1, 2]  # type: ignore[arg-type,comparison-overlap]
    assert evenly(range(3), 0) == []  # type: ignore[arg-type]


def test_inspection_matches_its_parts(drawn: Path) -> None:
    torch.manual_seed(0)
    data = DataSet(drawn / "data_set")
    classes = data.classes
    network = CamNetwork(Backbone("resnet10", output_stride=8), len(classes) - 1).eval()
    torch.nn.init.normal_(network.head.weight, std=0.5)
    seen = Inspection(data, count=5, side=64, threshold=0.6)(network)

    counts, pairs = DomainCounts(), []
    for entry in evenly(data.split("train"), 5):
        image = unit(data.image(entry))[None]
        tags = tag_vector(entry.tags, classes)[None]
        with torch.no_grad():
            output = network(image)
            source = confident(output.maps, tags, 0.6)
            target = confident(network(erase(image, source, network.backbone.mean)).maps, tags, 0.6)
        labels = domain_labels(source, target)
        counts.add(
            labels[0, tags[0] > 0],
            [classes.index(tag) for tag in entry.tags],
            data.true_mask(entry),
        )
        pairs.append(domain_features(output.features["stage4"], labels))
    expected = {**counts.scores(), "gap": proxy_a_distance(pairs)}
    assert {f"train_{name}": value for name, value in expected.items()}.items() <= seen.items()
    assert 0 < seen["train_source"] < 100
    assert {name.partition("_")[0] for name in seen} == {"train", "val"}
    assert 0 < seen["val_tags"] < 100
    assert Inspection(data, count=0, side=64, threshold=0.6)(network) == {}


def test_metrics_contain_last_inspection(drawn: Path, tmp_path: Path) -> None:
    params = write_params(tmp_path / "params.yaml", train_cam__inspected=3)
    data = {"data_set": drawn / "data_set"}
    made = {
        name: tmp_path / file
        for name, file in {
            "cam_history": "history.csv",
            "cams": "cams.npz",
            "pseudo_masks": "masks",
            "boundary_seeds": "boundary.zip",
            "refined_cams": "refined.npz",
            "background_scores": "background_scores.json",
            "cam_metrics": "metrics.json",
            "cam_class_scores": "classes.csv",
            "seed_curve": "seeds.csv",
        }.items()
    }
    network, boundary = tmp_path / "network.pt", tmp_path / "boundary.pt"
    for stage, paths in {
        "train_cam": {
            "cam_backbone": drawn / "cams.pt",
            "checkpoints": tmp_path / "checkpoints",
            "cam_network": network,
            "cam_history": made["cam_history"],
            "cam_machine": tmp_path / "machine.json",
        },
        "infer_cams": {"cam_network": network, "cams": made["cams"]},
        "train_boundary": {
            "cams": made["cams"],
            "cam_network": network,
            "checkpoints": tmp_path / "checkpoints",
            "boundary_network": boundary,
            "boundary_seeds": made["boundary_seeds"],
            "boundary_history": tmp_path / "boundary.csv",
        },
        "make_masks": {
            "boundary_network": boundary,
            **{k: made[k] for k in ("cams", "pseudo_masks", "refined_cams", "background_scores")},
        },
        "evaluate_cams": made,
    }.items():
        assert run_stage(stage, params, **data, **paths) == 0
    metrics = json.loads(made["cam_metrics"].read_text())
    history = pd.read_csv(made["cam_history"])
    assert metrics["inspected"] == last_inspection(history)
    assert metrics["inspected"]["val"]["source"] == history["val_source"].iloc[-1] > 0
    assert metrics["inspected"]["train"]["tags"] > 0
