"""A short run of the fuzzer; `python -m tests.fuzz` runs longer."""

import os
import re
import subprocess
import sys
from pathlib import Path

from conftest import ROOT
from fuzz import DOORS

SECONDS = 4  # of each door
SEED = 11  # fixed, so that a slow machine tries a subset of the same inputs


def test_fuzz_finds_no_wrong_result(tmp_path: Path) -> None:
    limits = ["--seconds", str(SECONDS), "--seed", str(SEED)]
    command = [sys.executable, "-m", "tests.fuzz", *limits, "--failures", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = re.findall(r"^(\w+): (\d+) accepted, (\d+) refused, 0 wrong", done.stdout, re.MULTILINE)
    assert [door for door, *_ in counts] == list(DOORS)
    assert all(int(accepted) + int(refused) > 1 for _, accepted, refused in counts)
