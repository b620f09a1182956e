"""The benchmarks that others run, on small sizes: they run, and what they compare is the same thing."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import ROOT


def run(name: str, *flags: str) -> str:
    """What a benchmark prints."""
    command = [sys.executable, str(Path("benchmarks") / name), *flags]
    environment = {**os.environ, "PYTHONPATH": "."}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_published_step_computes_what_ours_does() -> None:
    """The script itself refuses to time two things that differ."""
    said = run("published_step.py", "--tiny", "--rounds", "1")
    for term in ("tags", "minimum", "equivariance", "cross", "adversary", "supervision"):
        assert f"  {term} " in said
    assert said.count("ours, PLDA ") == 1
