"""Snakemake and its jobs are killed; the same command goes on. `tests/kills.py` does it a hundred times."""

import os
import signal
import time
from pathlib import Path

from kills import disturb
from test_engines import Tree


def test_job_that_outlives_snakemake_keeps_the_lock(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.set("train_cam.epochs", 10_000)
    command = ("snakemake", "--cores", "1", "--until", "train_cam")
    first = tree.start(*command)
    try:
        while not list(tmp_path.glob("checkpoints/**/last.pt")):
            assert first.poll() is None
            time.sleep(0.2)
        assert "cannot be locked" in tree.run(*command, ok=False)
        first.kill()
        assert "cannot be locked" in tree.run(*command, ok=False)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
    tree.set("train_cam.epochs", 1)
    tree.run(*command)


def test_same_command_goes_on_after_kills(tmp_path: Path) -> None:
    outcome = disturb(Tree(tmp_path), "snakemake", kills=2, until="train_cam")
    assert outcome.hits.total() == 2
    assert outcome.differences == []
