"""The whole small pipeline through both engines in one tree, as a user runs them."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Photos, write_params

from plda.__main__ import STAGES
from plda.changes import with_changes

AFTER_PREDICTION = ["predict_masks", "evaluate", "report"]
AFTER_MASKS = ["make_masks", "evaluate_cams", "relabel_masks", "train_segmenter", *AFTER_PREDICTION]
EVERY = list(STAGES)


class Tree:
    """A clone of this working tree with small params, committed to its own git repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tracked = self._git_files()
        for name in tracked:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
        write_params(folder / "params.yaml")
        self.run("git", "init", "-q")
        self.commit()

    @staticmethod
    def _git_files() -> list[str]:
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        return [name for name in listed if (ROOT / name).is_file()]

    def run(self, *command: str, ok: bool = True) -> str:
        """Run a command in the tree; return its standard output and error."""
        process = self.start(*command)
        output, _ = process.communicate()
        assert (process.returncode == 0) == ok, output
        return output

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command in the tree in its own process group."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "OMP_NUM_THREADS": "1",
                "GIT_AUTHOR_NAME": "test",
                "GIT_AUTHOR_EMAIL": "test@example.org",
                "GIT_COMMITTER_NAME": "test",
                "GIT_COMMITTER_EMAIL": "test@example.org",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def make(self, target: str, ok: bool = True) -> str:
        return self.run("make", "-o", ".venv/ready", target, ok=ok)

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", "a run")

    def set(self, name: str, value: object) -> None:
        path = self.folder / "params.yaml"
        params = with_changes(yaml.safe_load(path.read_text()), {name: value}, "")
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def snakemake_plan(self) -> list[str]:
        """Return the stages that Snakemake would run now."""
        plan = self.run("snakemake", "--dry-run")
        planned = {line.split()[0] for line in plan.splitlines() if re.fullmatch(r"\w+ +\d+", line)}
        return [name for name in EVERY if name in planned]

    def dvc_ran(self, output: str) -> list[str]:
        """Return the stages that DVC reports as run."""
        return [name for name in EVERY if f"Running stage '{name}'" in output]

    def metrics(self) -> dict:
        files = [self.folder / f"results/main/{name}/metrics.json" for name in ("evaluate_cams", "evaluate")]
        return {key: value for file in files for key, value in json.loads(file.read_text()).items()}

    def leave_out_optional_stages(self) -> None:
        """Disable the boundary network and relabelling, for tests that are not about them."""
        self.set("train_boundary.enabled", False)
        self.set("make_masks.refinement", ["pamr"])
        self.set("relabel_masks.enabled", False)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return Tree(tmp_path_factory.mktemp("tree"))


def test_both_engines_end_to_end(tree: Tree) -> None:
    # Snakemake runs all stages, with a benchmark of each; then it has nothing to do
    assert tree.snakemake_plan() == EVERY
    tree.run("snakemake", "--cores", "1")
    assert tree.snakemake_plan() == []
    assert "Nothing to be done" in tree.run("snakemake", "--cores", "1")
    for name in EVERY:
        assert (tree.folder / "logs" / "main" / f"{name}.benchmark.tsv").exists()
    metrics = tree.metrics()
    for masks in ("seeds", "pseudo_masks", "predictions"):
        assert 0 <= metrics[masks]["miou"] <= 100
    page = (tree.folder / "results/main/report/report.html").read_text()
    assert f"{metrics['seeds']['miou']:.1f}" in page

    # DVC adopts the results and runs nothing
    tree.make("adopt-dvc")
    assert tree.run("dvc", "status") == "Data and pipelines are up to date.\n"
    assert tree.dvc_ran(tree.run("dvc", "repro")) == []
    assert tree.snakemake_plan() == []
    tree.commit()
    assert tree.run("git", "status", "--short") == ""

    # a changed value of one stage: exactly that stage and the later ones rerun, in either engine
    tree.set("predict_masks.refinement", [])
    assert tree.snakemake_plan() == AFTER_PREDICTION
    assert tree.make("adopt-dvc", ok=False).count("Snakemake has work left") == 1
    assert tree.make("adopt-snakemake", ok=False).count("DVC has work left") == 1
    assert tree.dvc_ran(tree.run("dvc", "repro")) == AFTER_PREDICTION
    assert tree.dvc_ran(tree.run("dvc", "repro")) == []
    changed = tree.metrics()
    assert changed["seeds"] == metrics["seeds"]
    assert changed["predictions"] != metrics["predictions"]
    difference = json.loads(tree.run("dvc", "metrics", "diff", "--json"))
    assert difference["results/main/evaluate/metrics.json"]["predictions.miou"] == {
        "old": metrics["predictions"]["miou"],
        "new": changed["predictions"]["miou"],
        "diff": pytest.approx(changed["predictions"]["miou"] - metrics["predictions"]["miou"]),
    }

    # Snakemake adopts DVC's results and runs nothing
    tree.make("adopt-snakemake")
    assert tree.snakemake_plan() == []
    assert tree.run("dvc", "status") == "Data and pipelines are up to date.\n"

    # back to the first value: both engines compute the same numbers
    tree.set("predict_masks.refinement", ["pamr", "regions"])
    tree.run("snakemake", "--cores", "1")
    assert tree.metrics() == metrics
    tree.make("adopt-dvc")
    assert tree.run("git", "diff", "HEAD") == ""  # dvc.lock, too: all bytes equal those of the first run

    # a decision of a review: make_masks and the later stages, but no training of the classifier
    table = tree.folder / "review/decisions.csv"
    table.write_text(table.read_text(encoding="utf-8") + "train/0001.png,reject,\n", encoding="utf-8")
    assert tree.snakemake_plan() == AFTER_MASKS
    assert re.findall(r"^(\w+):", tree.run("dvc", "status"), re.M) == ["make_masks"]
    tree.run("git", "checkout", "review")
    assert tree.snakemake_plan() == []

    # an experiment, its metrics and the curves
    tree.run("dvc", "exp", "run", "-S", "predict_masks.flip=false", "--name", "unflipped")
    names = tree.run("dvc", "metrics", "diff", "HEAD", "unflipped", "--json")
    assert "predictions.miou" in names
    plots = json.loads(tree.run("dvc", "plots", "show", "--json"))
    assert any("train_cam/history.csv" in name for name in plots["data"])


def test_engines_stop_at_first_stage_on_bad_input(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    shutil.copytree(tmp_path / "data", tmp_path / "my photos")
    tree.set("source", "folder")
    tree.set("index_data.folder", "my photos")
    for command in (("snakemake", "--cores", "1", "--until", "index_data"), ("dvc", "repro", "index_data")):
        said = tree.run(*command, ok=False)
        assert "my photos/classes.txt: must have 1 to 254 classes" in said
        assert "non-zero" in said or "exited with 2" in said  # the failure itself, not the missing output
        assert list((tmp_path / "results/main/index_data").rglob("*.*")) == []


def test_compute_settings_rerun_nothing(tree: Tree) -> None:
    before = tree.snakemake_plan(), tree.run("dvc", "status")
    tree.set("compute.workers", 1)
    assert (tree.snakemake_plan(), tree.run("dvc", "status")) == before


EVIL = """-it's "q" {run} {2024} $(touch ran) `touch ran` ${HOME}; touch ran & *"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tree, Photos]:
    """Return a tree with photos in a folder with an awkward name, indexed by both engines."""
    tree = Tree(tmp_path_factory.mktemp("own"))
    photos = Photos(tree.folder / EVIL)
    future = time.time() + 10_000
    os.utime(photos.folder / "tags.csv", (future, future))
    tree.set("source", "folder")
    tree.set("index_data.folder", EVIL)
    tree.run("snakemake", "--cores", "1", "--until", "index_data")
    tree.run("dvc", "repro", "index_data")
    return tree, photos


def test_folder_name_is_not_executed_by_shell(own: tuple[Tree, Photos]) -> None:
    tree, _ = own
    assert (tree.folder / "results/main/index_data/data_set/index.csv").exists()
    assert not (tree.folder / "ran").exists()


def test_unlisted_files_do_not_change_the_data_set(own: tuple[Tree, Photos]) -> None:
    tree, photos = own
    (photos.folder / "Thumbs.db").write_bytes(b"junk")
    assert "up to date" in tree.run("dvc", "status", "index_data")
    (photos.folder / "a.json").write_text("{}")  # DVC runs index_data again; the data set is the same
    before = (tree.folder / "dvc.lock").read_text()
    assert tree.dvc_ran(tree.run("dvc", "repro", "index_data")) == ["index_data"]
    after = (tree.folder / "dvc.lock").read_text()
    data_set = r"index_data/data_set\n *hash: md5\n *md5: (\w+)"
    assert re.findall(data_set, before) == re.findall(data_set, after) != []
    assert "index_data" not in tree.snakemake_plan()


def test_replaced_photo_reruns_index_data(own: tuple[Tree, Photos]) -> None:
    tree, photos = own
    (photos.folder / "c.jpg").write_bytes((photos.folder / "b.jpg").read_bytes())
    assert "index_data" in tree.snakemake_plan()


def test_snakemake_rejects_file_with_future_time(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    future = time.time() + 10_000
    os.utime(tmp_path / "plda/files.py", (future, future))
    said = tree.run("snakemake", "--cores", "1", ok=False)
    assert "plda/files.py: its time must not be in the future" in said
    assert not (tmp_path / "results").exists()
    tree.run("find", ".", "-newermt", "now", "-exec", "touch", "{}", "+")
    assert tree.snakemake_plan() == EVERY
