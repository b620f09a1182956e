"""Relabelling of the training images by a first network and their tags."""

from pathlib import Path

import numpy as np
import pytest
from conftest import run_stage, write_params
from test_training import trainer

from plda.data.data_set import DataSet
from plda.data.decisions import Decision, write_decisions
from plda.data.images import VOID
from plda.errors import INTERRUPTED
from plda.masks.estimate import read_estimates
from plda.masks.folder import Masks, mask_path, write_mask
from plda.masks.review import image_name
from plda.stages import relabel_masks as stage


@pytest.fixture
def given(drawn: Path, tmp_path: Path) -> dict[str, Path]:
    """Return the stage's paths; the masks to learn from are the true masks."""
    _, paths = trainer("train_segmenter", drawn, tmp_path)
    names = ("data_set", "segmenter_backbone", "checkpoints")
    write_decisions(paths["training_masks"], {})
    return {name: paths[name] for name in names} | {
        "pseudo_masks": paths["training_masks"],
        "training_masks": tmp_path / "relabelled",
        "training_estimates": tmp_path / "estimates.csv",
    }


def relabel(tmp_path: Path, given: dict[str, Path], **changes: object) -> list[np.ndarray]:
    """Run the stage; return the masks in index order."""
    own = {f"relabel_masks__{name}": value for name, value in changes.items()}
    params = write_params(tmp_path / "params.yaml", **own)
    assert run_stage("relabel_masks", params, **given) == 0
    entries = DataSet(given["data_set"]).training
    assert all(mask_path(given["training_masks"], entry).exists() for entry in entries)
    return [Masks(given["training_masks"])(entry) for entry in entries]


def test_relabelled_pixels_have_tagged_classes(given: dict[str, Path], tmp_path: Path) -> None:
    masks = relabel(tmp_path, given, undecided=0.02)
    data = DataSet(given["data_set"])
    seen = set()
    for entry, mask in zip(data.training, masks, strict=True):
        found = {int(c) for c in np.unique(mask)}
        assert found <= {0, VOID, *map(data.classes.index, entry.tags)}
        seen |= found
    assert seen > {0, VOID}
    assert list(given["checkpoints"].glob("*.pt")) == []


def test_larger_margin_leaves_more_pixels_undecided(given: dict[str, Path], tmp_path: Path) -> None:
    shares = [
        np.mean([np.mean(mask == VOID) for mask in relabel(tmp_path, given, undecided=undecided)])
        for undecided in (0.0, 0.1, 0.4)
    ]
    assert shares[0] == 0 < shares[1] < shares[2]


def test_disabled_stage_keeps_pseudo_masks(given: dict[str, Path], tmp_path: Path) -> None:
    masks = relabel(tmp_path, given, enabled=False)
    for entry, mask in zip(DataSet(given["data_set"]).training, masks, strict=True):
        assert np.array_equal(mask, Masks(given["pseudo_masks"])(entry))
    assert given["training_estimates"].read_text(encoding="utf-8") == "image,expected_iou\n"


def test_relabelling_keeps_decisions_of_review(given: dict[str, Path], tmp_path: Path) -> None:
    data = DataSet(given["data_set"])
    accepted, rejected, corrected = data.training[:3]
    others = tuple(name for name in data.classes[1:] if name not in corrected.tags)
    decided = {
        accepted: Decision("accept"),
        rejected: Decision("reject"),
        corrected: Decision("tags", others),
    }
    write_decisions(given["pseudo_masks"], {image_name(entry): kind for entry, kind in decided.items()})
    write_mask(given["pseudo_masks"], rejected, np.full(rejected.size, VOID, np.uint8))
    masks = relabel(tmp_path, given, undecided=0.0)
    assert np.array_equal(masks[0], Masks(given["pseudo_masks"])(accepted))
    assert (masks[1] == VOID).all()
    assert {*np.unique(masks[2])} <= {0, *map(data.classes.index, others)} and masks[2].any()
    expected = read_estimates(given["training_estimates"], data.training)
    assert expected[rejected.key] == 0
    assert all(0 < value <= 100 for key, value in expected.items() if key != rejected.key)


def test_interrupted_relabelling_does_not_train_again(
    given: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = relabel(tmp_path, given)

    def killed(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "write_mask", killed)
        assert run_stage("relabel_masks", tmp_path / "params.yaml", **given) == INTERRUPTED
    assert len(list(given["checkpoints"].glob("relabel_masks-*.pt"))) == 1
    monkeypatch.setattr(stage, "fit_segmenter", killed)
    for again, first in zip(relabel(tmp_path, given), expected, strict=True):
        assert np.array_equal(again, first)
