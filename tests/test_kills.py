"""Interrupted or killed Snakemake runs resume with the same command. See also `tests/kills.py`."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import pytest
from kills import disturb, kill_group
from test_engines import Tree

TRAIN = ("snakemake", "--cores", "1", "--until", "train_cam")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    tree.set("train_cam.epochs", 10_000)
    return tree


@pytest.fixture
def training(tree: Tree) -> Iterator[Popen[str]]:
    """Yield a running Snakemake whose training job has saved a checkpoint."""
    snakemake = tree.start(*TRAIN)
    try:
        while not list(tree.folder.glob("checkpoints/**/last.pt")):
            assert snakemake.poll() is None
            time.sleep(0.2)
        yield snakemake
    finally:
        kill_group(snakemake)


def test_lock_remains_while_orphaned_job_runs(tree: Tree, training: Popen[str]) -> None:
    assert "cannot be locked" in tree.run(*TRAIN, ok=False)
    training.kill()
    assert "cannot be locked" in tree.run(*TRAIN, ok=False)
    kill_group(training)
    tree.set("train_cam.epochs", 1)
    tree.run(*TRAIN)


def test_ctrl_c_keeps_log_and_training_state(tree: Tree, training: Popen[str]) -> None:
    os.killpg(training.pid, signal.SIGINT)
    training.communicate()
    log = tree.folder / "logs/main/train_cam.log"
    assert not log.read_text().splitlines()[-1].startswith("epoch")
    log.unlink()  # Snakemake removes it as well, some time before the job starts a new one
    again = tree.start(*TRAIN)
    while not log.exists() or "resumed after step" not in log.read_text():
        assert again.poll() is None
        time.sleep(0.2)
    kill_group(again)


def test_same_command_resumes_after_kills(tmp_path: Path) -> None:
    outcome = disturb(Tree(tmp_path), "snakemake", kills=2, until="train_cam", longest=6)
    assert outcome.hits.total() == 2
    assert outcome.differences == []
