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
from plda.masks.estimate import expected_iou, expected_iou_with_tags, write_estimates
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


def test_expected_iou_counts_undecided_pixels_as_missed() -> None:
    masks = torch.tensor([[[1, 1, 255, 255]], [[255, 255, 255, 255]]])
    certain = torch.zeros(2, 2, 1, 4)
    certain[:, 1] = 1
    assert expected_iou(certain, masks).tolist() == [50, 0]


def test_expected_iou_with_tags_matches_definition() -> None:
    generator = torch.Generator().manual_seed(1)
    probabilities = (3 * torch.randn(3, 4, 10, 20, generator=generator)).softmax(dim=1)
    masks = probabilities.argmax(dim=1)
    masks[masks == 3] = 0
    masks[1][masks[1] == 2] = 1
    ids = [[1, 2], [1, 2], [0]]
    found = expected_iou_with_tags(probabilities, masks, ids).tolist()
    for i, (p, y, tagged) in enumerate(zip(probabilities.numpy(), masks.numpy(), ids, strict=True)):
        present = set(y.ravel().tolist())
        mean = by_definition(p, y) * len(present) / len(present | {0, *tagged})
        least = min(np.sort(p[c].ravel())[197] if c else 1 for c in tagged)  # 2 of 200 pixels are higher
        assert found[i] == pytest.approx(least * mean, rel=1e-5)
    assert len(present) == 3 and found[2] == pytest.approx(by_definition(p, y), rel=1e-5)


def test_expected_iou_with_tags_is_low_for_wrong_tags() -> None:
    """The network sees class 1 in the left half of the image."""
    probabilities = torch.tensor([0.04, 0.95, 0.01, 0.94, 0.04, 0.02]).reshape(2, 3).repeat_interleave(50, 0)
    probabilities = probabilities.T.reshape(1, 3, 10, 10)
    given = {
        "right": ([1], 1),
        "added": ([1, 2], 1),
        "replaced": ([2], 0),
        "missing": ([0], 0),
    }  # tags, and the class that the mask has in the left half
    found = {}
    for name, (ids, left) in given.items():
        mask = torch.zeros(1, 10, 10, dtype=torch.int64)
        mask[:, :5] = left
        found[name] = expected_iou_with_tags(probabilities, mask, [ids]).item()
    assert found["right"] > 85
    assert max(found["added"], found["replaced"], found["missing"]) < 60


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
