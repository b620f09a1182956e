"""The tutorial: every command of docs/tutorial.md runs in a clone, from top to bottom."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import ROOT, TRAINER, TRAINERS
from test_adding import read_blocks
from test_engines import Tree

from plda.__main__ import STAGES
from plda.changes import flat, with_changes

PAGE = ROOT / "docs" / "tutorial.md"
# replaces values that take too long or need a download
SMALL = {
    **{f"download_backbone.{role}.name": "resnet10" for role in ("cams", "segmenter")},
    **{f"download_backbone.{role}.weights": "random" for role in ("cams", "segmenter")},
    "compute.workers": 0,
    "index_data.long_side": 64,
    **{f"{stage}.{name}": value for stage in TRAINERS for name, value in TRAINER.items()},
    **{f"{stage}.batch_norm": "trained" for stage in TRAINERS if stage != "train_boundary"},
    "train_cam.lr": 0.001,
    "infer_cams.scales": [1.0],
    "report.gallery": 4,
    "report.worst": 2,
}


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tree, list[str]]:
    """Return the clone after the last command, and the output of each command."""
    tree = Tree(tmp_path_factory.mktemp("tutorial"))
    params = tree.folder / "params.yaml"
    setup, *rest = [block for block in read_blocks(PAGE) if block.kind in ("sh", "yaml")]
    assert "make .venv/ready" in setup.text  # replaced by the environment that runs this test
    printed = []
    for block in rest:
        if block.kind == "yaml":
            changes = flat(yaml.safe_load(block.text))
            params.write_text(yaml.safe_dump(with_changes(yaml.safe_load(params.read_text()), changes, "")))
        else:
            printed.append(tree.run("bash", "-euo", "pipefail", "-c", block.text))
        if "plda preset" in block.text:
            params.write_text(yaml.safe_dump(with_changes(yaml.safe_load(params.read_text()), SMALL, "")))
    return tree, printed


def test_tutorial_produces_masks_and_network(followed: tuple[Tree, list[str]]) -> None:
    tree, _ = followed
    photos = pd.read_csv(tree.folder / "photos/tags.csv")["image"]
    labelled = pd.read_csv(tree.folder / "labelled/summary.csv")["photo"]
    assert set(photos) == {Path(name).name for name in labelled}
    for name in ("before.html", "results/main/report/report.html", "my-classes.pt", "coco/annotations.json"):
        assert (tree.folder / name).stat().st_size > 1000
    scores = json.loads((tree.folder / "results/main/evaluate/metrics.json").read_text())
    assert scores["predictions"]["miou"] > 0


def test_tutorial_change_reruns_only_later_stages(followed: tuple[Tree, list[str]]) -> None:
    tree, printed = followed
    ran = [
        [name for name in STAGES if re.search(rf"^{name}: ", text, flags=re.MULTILINE)] for text in printed
    ]
    checked, whole, changed = [stages for stages in ran if stages]
    assert checked == ["download_data", "index_data"]
    assert whole == [name for name in STAGES if name not in checked]
    after = whole[whole.index("make_masks") :]
    assert changed == after
    # the last change of the page also reruns the CAM stages, but not the data stages
    assert tree.snakemake_plan() == whole[whole.index("train_cam") :]
