"""Mutated inputs at every door, for a short time; `python -m tests.fuzz` tries more."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from fuzz import DOORS

SECONDS = 5  # of each door


@pytest.mark.parametrize("door", DOORS)
def test_no_mutated_input_goes_wrong(door: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--door", door, "--seconds", str(SECONDS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--failures", str(tmp_path)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    accepted, refused = map(int, re.findall(r"(\d+) (?:accepted|refused)", done.stdout))
    assert accepted and refused
