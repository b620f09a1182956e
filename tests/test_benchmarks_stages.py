"""benchmarks/stages.py: both tables have a line for every stage, with plausible values."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from benchmarks import stages
from benchmarks.stages import Cost, Run
from plda.__main__ import STAGES, main

REAL = ("download_data", "index_data")  # do not import torch, which takes seconds


def test_costs_compares_two_trees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure, ran = stages.measure, []

    def in_this_process(run: Run, name: str) -> Cost:
        """Run most stages in this process: importing torch 20 times would take minutes."""
        ran.append((name, run.folder.name))
        if name in REAL:
            return measure(run, name)
        monkeypatch.chdir(run.folder)
        began = time.perf_counter()
        assert main(shlex.split(run.commands[name])[3:]) == 0
        return Cost(time.perf_counter() - began, 1, 1, 1)

    (tmp_path / "given").mkdir()
    stages.draw(tmp_path / "given/photos", 20)
    monkeypatch.setattr(stages, "measure", in_this_process)
    given = ("--folder", str(tmp_path / "given/photos"), "--share", "0.2", "--threads", "1")
    monkeypatch.setattr(sys, "argv", ["stages.py", "costs", *given, "--trees", str(ROOT), str(ROOT)])
    stages.main()

    said = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("results/")]
    first, _, *rows, _, below_1, below_2 = said
    assert first == "4 train and 1 val images, 1 threads"
    names = [*STAGES, "predict", "all"]
    assert [row.split()[0] for row in rows] == [name for name in names for _ in range(2)]
    for name, *_, seconds, speed, cpu, largest, everything, ratio in (row.split() for row in rows):
        assert (speed == "-") == (name in ("download_data", "download_backbone", "train_boundary", "all"))
        figures = (seconds, cpu, largest, everything, ratio, "1" if speed == "-" else speed)
        assert all(float(figure) > 0 for figure in figures), rows
    assert ran[:4] == [
        ("download_data", "1"),
        ("download_data", "2"),
        ("index_data", "2"),
        ("index_data", "1"),
    ]
    scores = [line.split()[-6:] for line in (below_1, below_2)]
    assert scores[0] == scores[1]
    assert scores[0][::2] == ["seeds", "pseudo_masks", "predictions"]
    assert all(0 < float(score) < 100 for score in scores[0][1::2])


def test_growth_measures_each_stage_and_size() -> None:
    asked = ["index_data", "infer_cams"]
    options = ("--images", "8", "--factors", "1", "2", "--threads", "1", "--stages", *asked)
    told = subprocess.run(
        [sys.executable, "benchmarks/stages.py", "growth", *options],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    rows = [row.split() for row in told.stdout.splitlines()[2:]]
    assert [row[:2] for row in rows] == [
        ["index_data", "10"],
        ["index_data", "20"],
        ["infer_cams", "8"],
        ["infer_cams", "16"],
    ]
    assert all(float(figure) > 0 for row in rows for figure in row[2:7])
    assert "x2 train_cam" not in told.stderr  # the network of the first size is reused
    rest = [(1, Cost(3, 1, 1, 1)), (2, Cost(4, 1, 1, 1)), (4, Cost(8, 1, 1, 1))]
    assert stages.slope_ratio(rest) == "2.00"
