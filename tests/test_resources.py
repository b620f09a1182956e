"""Cluster resources of the jobs that Snakemake plans. On a real cluster: tests/cluster."""

import re
from pathlib import Path

import pytest
import yaml
from test_engines import Tree

FILLED = ["slurm_account=''", "slurm_partition=gpu"]


def gpus(tree: Tree) -> dict[str, str]:
    """Return the number of GPUs of every planned job, by rule and run."""
    plan = tree.run("snakemake", "--dry-run", "all", "ablations")
    jobs = re.findall(
        r"^rule (\w+):\n(?:    .*\n)*?    wildcards: run=(\S+)\n(?:    .*\n)*?    resources: .*\bgpu=(\d)",
        plan,
        re.M,
    )
    return {f"{rule} of {run}": number for rule, run, number in jobs}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    tree = Tree(tmp_path_factory.mktemp("tree"))
    ablations = yaml.safe_load((tree.folder / "ablations.yaml").read_text())
    ablations |= {"until": "make_masks", "repeats": {"r": {}}, "common": {}}
    ablations |= {"baseline": "one", "runs": {"one": {"compute.devices": 1, "seed": 1}}}
    (tree.folder / "ablations.yaml").write_text(yaml.safe_dump(ablations))
    return tree


def test_network_stages_request_one_gpu_per_process(tree: Tree) -> None:
    tree.set("compute.device", "auto")
    tree.set("compute.devices", 2)
    before = ["train_cam", "infer_cams", "train_boundary", "make_masks"]
    after = ["relabel_masks", "train_segmenter", "predict_masks"]
    of_main = {f"{name} of main": "2" for name in [*before, *after]}
    assert gpus(tree) == of_main | {f"{name} of one-r": "1" for name in before}


def test_cpu_stages_request_no_gpu(tree: Tree) -> None:
    tree.set("compute.device", "cpu")
    assert set(gpus(tree).values()) == {"0"}


@pytest.mark.parametrize("name", ["slurm_account", "slurm_partition"])
def test_profile_with_placeholder_is_refused(tree: Tree, name: str) -> None:
    values = [text if not text.startswith(name) else f"{name}=FILL_IN" for text in FILLED]
    said = tree.run("snakemake", "--dry-run", "--default-resources", *values, ok=False)
    assert f"{name} is yours to fill in" in said
    assert "input:" not in said  # nothing was planned


def test_shipped_profile_contains_placeholders(tree: Tree) -> None:
    profile = yaml.safe_load(Path(tree.folder / "profiles/slurm/config.yaml").read_text())
    assert profile["default-resources"]["slurm_account"] == "FILL_IN"
    assert profile["default-resources"]["slurm_partition"] == "FILL_IN"
    tree.run("snakemake", "--dry-run", "--default-resources", *FILLED)
