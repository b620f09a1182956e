"""Interrupted or killed Snakemake runs resume with the same command. See also `tests/kills.py`."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

from kills import disturb, kill_group
from test_engines import Tree

TRAIN = ("snakemake", "--cores", "1", "--until", "train_cam")


def test_lock_and_training_state_survive_kill_and_ctrl_c(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.set("train_cam.epochs", 10_000)
    log = tmp_path / "logs/main/train_cam.log"
    running: list[Popen[str]] = []

    def resumed() -> bool:
        return log.exists() and "resumed after step" in log.read_text()

    def started(sign: Callable[[], bool]) -> Popen[str]:
        """Start Snakemake; wait until its training job gives a sign."""
        running.append(tree.start(*TRAIN))
        while not sign():
            assert running[-1].poll() is None
            time.sleep(0.2)
        return running[-1]

    try:
        first = started(lambda: bool(list(tmp_path.glob("checkpoints/**/last.pt"))))
        assert "cannot be locked" in tree.run(*TRAIN, ok=False)
        first.kill()
        assert "cannot be locked" in tree.run(*TRAIN, ok=False)  # its job still runs
        kill_group(first)

        log.unlink()  # Snakemake removes it as well, some time before the job starts a new one
        second = started(resumed)
        os.killpg(second.pid, signal.SIGINT)
        second.communicate()
        assert not log.read_text().splitlines()[-1].startswith("epoch")
        log.unlink()
        kill_group(started(resumed))
    finally:
        for snakemake in running:
            kill_group(snakemake)
    tree.set("train_cam.epochs", 1)
    tree.run(*TRAIN)


def test_same_command_resumes_after_kills(tmp_path: Path) -> None:
    outcome = disturb(Tree(tmp_path), "snakemake", kills=2, until="train_cam", longest=6)
    assert outcome.hits.total() == 2
    assert outcome.differences == []
