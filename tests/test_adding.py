"""The guides docs/adding-*.md and docs/stages.md, followed step by step in a copy of this tree."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import torch
from conftest import ROOT
from test_engines import Tree

from plda.data.data_set import DataSet
from plda.masks.cams import Cams

READ_RUNS = """
from pathlib import Path
from workflow.runs import read_runs
read_runs(Path("dvc.yaml"), Path("params.yaml"), Path("ablations.yaml"))
"""
DRAW_PETS = """
import sys, yaml
from pathlib import Path
sys.path.insert(0, "tests")
from test_pets import archive_table, draw
table = archive_table(draw(Path("downloads")))
Path("workflow/archives.yaml").write_text(yaml.safe_dump(table))
"""


class Block(NamedTuple):
    """A fenced block of a page; `path` is the new file with this content, if any."""

    path: str | None
    kind: str
    text: str


def read_blocks(page: Path) -> list[Block]:
    found = re.findall(r"(?:^New, `([^`\n]+)`:\n\n)?^```(\w+)\n(.*?)^```$", page.read_text(), re.M | re.S)
    return [Block(path or None, kind, text) for path, kind, text in found]


class Copy(Tree):
    """A clone of this working tree with its real params, in which a guide is followed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        params = (ROOT / "params.yaml").read_text()
        (folder / "params.yaml").write_text(params.replace("workers: 1", "workers: 0"))  # no worker process
        (folder / ".venv").mkdir()
        (folder / ".venv/ready").touch()  # use the environment that runs this test
        self.commit()

    def follow(self, page: Path) -> str:
        """Write the page's files and run its commands in order; return the output of the commands."""
        said = ""
        for path, kind, text in read_blocks(page):
            if path:
                assert not (self.folder / path).exists(), path
                (self.folder / path).write_text(text)
            elif kind == "diff":
                subprocess.run(["git", "apply", "-"], cwd=self.folder, input=text, text=True, check=True)
            elif kind == "sh":
                said += self.run("bash", "-euo", "pipefail", "-c", text)
            elif kind == "yaml":
                (self.folder / "ablations.yaml").write_text(text)
                self.run(sys.executable, "-c", READ_RUNS)
        self.run("ruff", "check", "--quiet", ".")
        self.run("ruff", "format", "--check", "--quiet", ".")
        return said

    def result(self, name: str) -> Path:
        return self.folder / "results/main" / name


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


PAGES = [*sorted((ROOT / "docs").glob("adding-*.md")), ROOT / "docs/stages.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_guide_states_correct_number_of_lines(page: Path) -> None:
    written = [
        line
        for path, kind, text in read_blocks(page)
        for line in text.splitlines()
        if path or (kind == "diff" and re.match(r"\+(?!\+\+ )", line))
    ]
    said = re.findall(r"^Lines: (\d+)", page.read_text(), re.M)
    assert sum(map(int, said)) == len(written)


def test_adding_a_baseline(copy: Copy) -> None:
    declaration = copy.folder / "dvc.yaml"
    text = declaration.read_text()
    assert text.count("      - plda/models/lse.py\n") == 6
    declaration.write_text(text.replace("      - plda/models/lse.py\n", ""))  # `make deps` restores it
    said = copy.follow(ROOT / "docs/adding-a-baseline.md")
    assert re.search(r"^\.{4} +\[100%\]", said, re.M), said  # its own test, the contract, the tagger, PLDA
    assert torch.load(copy.result("train_cam/network.pt"))["architecture"]["head"] == "lse"
    assert declaration.read_text() == text


def test_adding_a_refinement_and_then_a_stage(copy: Copy) -> None:
    declaration = copy.folder / "dvc.yaml"
    text = declaration.read_text()
    assert text.count("      - plda/refinement/guided_filter.py\n") == 2
    declaration.write_text(text.replace("      - plda/refinement/guided_filter.py\n", ""))
    said = copy.follow(ROOT / "docs/adding-a-refinement.md")
    assert re.search(r"^\.\.\. +\[100%\]", said, re.M), said  # its own test, the contract, the step names
    made = copy.result("make_masks")
    scores = json.loads((made / "background_scores.json").read_text())["scores"]
    assert list(scores) == ["seeds", "guided_filter"]
    raw, after = Cams(copy.result("infer_cams/cams.npz")), Cams(made / "cams.npz")
    data = DataSet(copy.result("index_data/data_set"))
    pairs = [(raw.read(e.key), after.read(f"guided_filter/{e.key}")) for e in data.training]
    assert any(before.any() for before, _ in pairs)
    assert all(torch.equal(*pair) == (not pair[0].any()) for pair in pairs)
    assert declaration.read_text() == text

    said = copy.follow(ROOT / "docs/stages.md")
    assert copy.dvc_ran(said) == [] and "Running stage 'count_classes'" in said  # no other stage ran
    table = pd.read_csv(copy.result("count_classes/classes.csv"))
    assert table["class"].tolist() == (data.folder / "classes.txt").read_text().split()
    assert table["percent"].sum() == pytest.approx(100, abs=0.1)


def test_adding_a_data_set(copy: Copy) -> None:
    copy.follow(ROOT / "docs/adding-a-data-set.md")
    copy.run(sys.executable, "-c", DRAW_PETS)
    copy.set("source", "pets")
    copy.run("snakemake", "--cores", "1", "--until", "index_data")
    assert rows(copy) == [("Birman_1", "train", ("cat",)), ("pug_10", "train", ("dog",)),
                          ("Birman_2", "train", ("cat",)), ("boxer_3", "val", ("dog",))]  # fmt: skip


def rows(copy: Copy) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(e.key, e.split, e.tags) for e in DataSet(copy.result("index_data/data_set")).entries]
