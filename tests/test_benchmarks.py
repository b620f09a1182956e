"""The benchmark scripts at small sizes: they run, and both sides of a comparison compute the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT


def run(name: str, *flags: str) -> str:
    """Run a benchmark; return its standard output."""
    command = [sys.executable, str(Path("benchmarks") / name), *flags]
    environment = {**os.environ, "PYTHONPATH": "."}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_published_step_benchmark_matches_our_losses() -> None:
    """The script itself fails if the two implementations differ."""
    said = run("published_step.py", "--tiny", "--rounds", "1")
    for term in ("tags", "minimum", "equivariance", "cross", "adversary", "supervision"):
        assert f"  {term} " in said
    assert said.count("ours, PLDA ") == 1


def test_gpu_benchmark_runs_on_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    said = run("gpu.py", "--device", "cpu", "--tiny", "--out", str(out))
    rows = json.loads(out.read_text())["rows"]
    assert not [row for row in rows if row["failed"]], said
    measured = {row["part"] for row in rows if isinstance(row["value"], float)}
    assert measured == {
        "formulas", "backbones", "training", "pipeline", "steps, resnet50", "steps, resnet38d",
        "inference", "refinement", "profile", "loading", "compile",
    }  # fmt: skip
    assert said.count("aim <= 1.35") == 6 and said.count("aim >= 5") == 1


def test_serve_benchmark_measures_every_row() -> None:
    pytest.importorskip("fastapi", reason="needs the extra web: make web")
    said = run("serve.py", "--requests", "3", "--clients", "1", "2", "--flags=--device cpu --no-refinement")
    rows = [line.strip("| ").split(" | ") for line in said.splitlines()[2:]]
    assert [row[0] for row in rows] == ["1", "2"]
    assert all(float(value) > 0 for row in rows for value in row)
