"""The pipeline on a real Slurm of two nodes, as a user of a cluster drives it, with what goes wrong there.

One story, told once, since a job takes seconds to start: Snakemake is killed while a training runs, and is
started again with an ablation beside the run `main`; that training is cancelled on the way.
"""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml
from test_engines import Tree
from two_nodes import SLURM, planted, started

from workflow.stages import MAIN

pytestmark = pytest.mark.cluster

PATIENCE = 600  # seconds
ABLATIONS = {
    "until": "evaluate_cams",
    "baseline": "plain",
    "metrics": ["pseudo_masks.miou"],
    "repeats": {"s0": {"seed": 0}, "s1": {"seed": 1}},
    "common": {},
    "runs": {
        "plain": {"make_masks.refinement": []},
        "pamr": {"make_masks.refinement": ["pamr"]},
        "walk": {"make_masks.refinement": ["random_walk"]},
        "both": {"make_masks.refinement": ["pamr", "random_walk"]},  # with seed 0 it is `main`
    },
}
TRAINERS = ["train_cam", "train_boundary", "relabel_masks", "train_segmenter"]


def jobs(tree: Tree) -> pd.DataFrame:
    """The tree's jobs, done or not: a row for each, with Slurm's own columns, `rule` and `run`."""
    text = subprocess.run(
        ["scontrol", "show", "job", "-o"], capture_output=True, text=True, check=True
    ).stdout
    rows = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in text.splitlines()]
    table = pd.DataFrame([row for row in rows if row.get("WorkDir") == str(tree.folder)])
    table[["rule", "run"]] = table["Comment"].str.extract("^rule_(.+)_wildcards_(.+)$")
    return table


def trainings(tree: Tree) -> list[str]:
    """Numbers of the running jobs that train the CAM network of the run `main`."""
    table = jobs(tree)
    now = (table.rule == "train_cam") & (table.run == MAIN) & (table.JobState == "RUNNING")
    return list(table[now].JobId)


def until(happens: Callable[[], object]) -> None:
    """Wait till something is so."""
    end = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < end, "that does not happen"
        time.sleep(0.2)


@dataclass
class Story:
    """What is left of it."""

    tree: Tree
    reference: Tree  # ran without Slurm
    jobs: pd.DataFrame  # with `gpus`, the number that a job got
    refused: str
    resumed: list[int]  # steps after which the training went on: of the second attempt, and of the third


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a Slurm that runs."""
    folder = tmp_path_factory.mktemp("slurm")
    with started(folder):
        yield folder


def slow(folder: Path) -> Tree:
    """A tree whose trainings run for some seconds."""
    tree = planted(folder)
    tree.set("compute.device", "auto")  # asks for a GPU; the stand-ins are none, so it is the CPU
    tree.set("train_cam.epochs", 36)
    (folder / "ablations.yaml").write_text(yaml.safe_dump(ABLATIONS))
    return tree


@pytest.fixture(scope="module")
def story(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    tree, reference = (slow(tmp_path_factory.mktemp(name)) for name in ("tree", "reference"))

    def resumed() -> int:
        log = tree.folder / "logs/main/train_cam.log"
        found = re.search(r"resumed after step (\d+)", log.read_text() if log.exists() else "")
        return int(found[1]) if found else 0

    # Snakemake is killed; its job goes on, until the user cancels it
    snakemake = tree.start(*SLURM)
    until(lambda: list((tree.folder / "checkpoints").rglob("last.pt")))
    snakemake.kill()
    snakemake.communicate()
    (job,) = trainings(tree)
    refused = tree.run(*SLURM, ok=False)
    subprocess.run(["scancel", job], check=True)
    until(lambda: not trainings(tree))
    tree.run("snakemake", "--unlock")

    # again, now with the ablation; the training that goes on is cancelled, and has to go on by itself
    snakemake = tree.start(*SLURM, "all", "ablations")
    try:
        until(resumed)
        steps = [resumed()]
        (job,) = trainings(tree)
        subprocess.run(["scancel", job], check=True)
        reference.run("snakemake", "--cores", "2")
        output, _ = snakemake.communicate(timeout=PATIENCE)
        assert snakemake.returncode == 0, output
    finally:
        snakemake.kill()
    granted = dict(line.split(" ") for line in (cluster / "gpus.txt").read_text().splitlines())
    table = jobs(tree)
    table["gpus"] = [len(granted[job].split(",")) if granted[job] else 0 for job in table.JobId]
    return Story(tree, reference, table, refused, [*steps, resumed()])


def test_it_computes_what_one_machine_computes(story: Story) -> None:
    assert story.tree.metrics() == story.reference.metrics()


def test_a_killed_snakemake_leaves_a_lock_and_a_job(story: Story) -> None:
    assert "--unlock" in story.refused
    assert list(story.jobs[story.jobs.rule == "train_cam"].JobState[:1]) == ["CANCELLED"]


def test_a_training_goes_on_in_the_next_job(story: Story) -> None:
    trainings = story.jobs[(story.jobs.rule == "train_cam") & (story.jobs.run == "main")]
    assert list(trainings.JobState) == ["CANCELLED", "CANCELLED", "COMPLETED"]
    assert list(trainings.MinMemoryNode) == [
        "16000M",
        "16000M",
        "32000M",
    ]  # the last is Snakemake's second attempt
    assert 0 < story.resumed[0] <= story.resumed[1]


def test_jobs_get_the_gpus_they_ask_for(story: Story) -> None:
    done = story.jobs[story.jobs.JobState == "COMPLETED"]
    assert set(done[done.gpus == 1].rule) == {*TRAINERS, "infer_cams", "make_masks", "predict_masks"}
    assert set(done[done.gpus == 0].rule) == {"index_data", "evaluate_cams"}  # the others are no jobs


def test_the_runs_of_an_ablation_share_both_nodes(story: Story) -> None:
    masks = story.jobs[story.jobs.rule == "make_masks"]
    assert set(masks.run) == {"main", "both-s1"} | {
        f"{run}-{s}" for run in ("plain", "pamr", "walk") for s in ("s0", "s1")
    }
    assert set(masks.NodeList) == {"n1", "n2"}
    assert any(
        (masks.StartTime < end).sum() - (masks.EndTime < end).sum() > 2 for end in masks.EndTime
    )  # at once
    table = pd.read_csv(story.tree.folder / "results/ablations.csv")
    assert list(table.n) == [2] * 4
