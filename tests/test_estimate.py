"""Expected IoU compared with its definition, pixel by pixel."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_stage, write_params
from scipy.stats import spearmanr

from plda.data.data_set import DataSet
from plda.files import write_json
from plda.masks.estimate import expected_iou, write_estimates
from plda.masks.folder import Masks, write_mask
from plda.scoring.images import score_images
from plda.scoring.summary import estimate_metrics, summarise


def by_definition(probabilities: np.ndarray, mask: np.ndarray) -> float:
    """Compute it in float64 for one image from (C, H, W) probabilities and an (H, W) mask."""
    ious = []
    for c in set(mask.ravel().tolist()):
        hits, union = 0.0, 0.0
        for y in range(mask.shape[0]):
            for x in range(mask.shape[1]):
                if mask[y, x] == c:
                    hits += float(probabilities[c, y, x])
                    union += 1
                else:
                    union += float(probabilities[c, y, x])
        ious.append(hits / union)
    return 100 * sum(ious) / len(ious)


@pytest.mark.parametrize("sharpness", [0.1, 1.0, 20.0])
def test_expected_iou_matches_definition(sharpness: float) -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = (sharpness * torch.randn(3, 5, 9, 7, generator=generator)).softmax(dim=1)
    masks = probabilities.argmax(dim=1)
    masks[1] = torch.randint(0, 5, (9, 7), generator=generator)  # an arbitrary mask
    masks[2][masks[2] == 4] = 0  # class 4 is not in the mask
    expected = [by_definition(p, y) for p, y in zip(probabilities.numpy(), masks.numpy(), strict=True)]
    assert expected_iou(probabilities, masks).numpy() == pytest.approx(expected, rel=1e-5)


def test_expected_iou_is_exact_for_certain_probabilities() -> None:
    masks = torch.tensor([[[0, 1, 1], [2, 0, 1]], [[0, 0, 0], [0, 0, 0]], [[2, 2, 2], [2, 2, 2]]])
    certain = torch.nn.functional.one_hot(masks, 3).permute(0, 3, 1, 2).float()
    assert expected_iou(certain, masks).tolist() == [100, 100, 100]
    assert expected_iou(certain, (masks + 1) % 3).tolist() == [0, 0, 0]


def test_expected_iou_of_one_class_is_mean_probability() -> None:
    background = torch.rand(1, 4, 6, generator=torch.Generator().manual_seed(0)) / 2 + 0.5
    probabilities = torch.stack([background, 1 - background], dim=1)
    found = expected_iou(probabilities, probabilities.argmax(dim=1))
    assert found.item() == pytest.approx(100 * background.mean().item())
    assert expected_iou(torch.ones(1, 1, 2, 2), torch.zeros(1, 2, 2)).tolist() == [100]  # no other class


def test_expected_iou_rejects_mismatched_shapes() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        expected_iou(torch.ones(1, 2, 3, 4), torch.zeros(1, 4, 3))


def test_estimate_metrics_give_mean_and_rank_correlation() -> None:
    expected = {"a": 10.0, "b": 30.0, "c": 20.0, "d": 60.0}
    assert estimate_metrics({}, {}) == {}
    assert estimate_metrics(expected, {"a": 5.0, "b": 6.0}) == {"estimate": {"expected_iou": 30.0}}
    assert estimate_metrics(expected, {"a": 5.0, "b": 5.0, "c": 5.0}) == {"estimate": {"expected_iou": 30.0}}
    metrics = estimate_metrics(expected, {"a": 1.0, "b": 2.0, "c": 3.0})
    assert metrics == {"estimate": {"expected_iou": 30.0, "rank_correlation": 0.5}}
    assert "mean IoU by image is 0.50" in summarise(metrics)
    told = summarise(estimate_metrics(expected, {})).split("\n")
    assert told[0].startswith("No true masks") and told[2].startswith(
        "Expected IoU of the segmentation: 30.0"
    )
    assert len(told) == 4 and "correlation" not in told[2]
    assert summarise({}) == "No true masks in the data set: nothing to score.\n"


def test_evaluate_compares_estimates_with_true_masks(drawn: Path, tmp_path: Path) -> None:
    data = DataSet(drawn / "data_set")
    outputs = ("cam_metrics", "predictions", "estimates", "metrics", "class_scores", "summary")
    paths = {name: tmp_path / name for name in outputs}
    write_json(paths["cam_metrics"], {"background_score_chosen_by": "hand"})
    entries = data.split("val")
    expected = dict(zip(entries, (40.0, 80.0, 10.0, 60.5), strict=True))
    for rows, entry in zip((30, 0, 20, 10), entries, strict=True):
        mask = data.true_mask(entry).copy()
        mask[:rows] = 0
        write_mask(paths["predictions"], entry, mask)
    train = data.training[0]
    write_mask(paths["predictions"], train, np.zeros(train.size, np.uint8))
    write_estimates(paths["estimates"], {train: 99.0, **expected}.items())  # only val counts
    params = write_params(tmp_path / "params.yaml", relabel_masks__enabled=False)
    given = {"data_set": data.folder, "training_masks": tmp_path / "none"}
    assert run_stage("evaluate", params, **given, **paths) == 0
    metrics = json.loads(paths["metrics"].read_text())
    scores, _ = score_images(data, entries, Masks(paths["predictions"]))
    order = spearmanr(list(expected.values()), [scores[entry.key] for entry in entries]).statistic
    assert metrics["estimate"] == {"expected_iou": 47.62, "rank_correlation": round(order, 3)}
    assert metrics["predictions"]["miou"] > 0
    assert f"mean IoU by image is {order:.2f}" in paths["summary"].read_text()
