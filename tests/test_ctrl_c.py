"""Ctrl-C, which a terminal sends to all processes of a command: one message, status 130, no leftovers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, build, run_stage, write_params
from test_distributed import members, trainer

from plda.data.data_set import DataSet
from plda.models.saved import Architecture, save_network


class Command:
    """A command in its own session, as a terminal starts it."""

    def __init__(self, log: Path, name: str, **flags: Path) -> None:
        given = [text for flag, path in flags.items() for text in ("--" + flag.replace("_", "-"), str(path))]
        self._log = log
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "plda", name, *given],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def stopped(self, after: float = 0, at: str = "", processes: int = 1) -> str:
        """Send Ctrl-C once the log has `at`, `processes` run and `after` seconds passed; return the log."""
        deadline = time.monotonic() + 120
        while at not in self._log.read_text() or len(members(self._process.pid)) < processes:
            assert time.monotonic() < deadline and self._process.poll() is None, self._log.read_text()
            time.sleep(0.01)
        time.sleep(after)
        os.killpg(self._process.pid, signal.SIGINT)
        assert self._process.wait(60) == 130, self._log.read_text()
        deadline = time.monotonic() + 30
        while members(self._process.pid):
            assert time.monotonic() < deadline, "something still runs"
            time.sleep(0.1)
        words = self._log.read_text()
        assert "Traceback" not in words
        return words


@pytest.mark.parametrize("devices", [1, 2])
def test_ctrl_c_keeps_training_state(drawn: Path, tmp_path: Path, devices: int) -> None:
    params, paths = trainer("train_cam", drawn, tmp_path)
    write_params(
        params,
        compute__devices=devices,
        compute__workers=1,
        train_cam__batch_norm="frozen",
        train_cam__epochs=200,
        train_cam__crop=32,
        train_cam__inspected=0,
    )
    words = Command(tmp_path / "log", "train_cam", params=params, **paths).stopped(at="epoch ")
    *_, last = (line for line in words.splitlines() if line.startswith("plda"))
    assert last.startswith("plda train_cam: stopped by a signal after step")
    assert not list(tmp_path.rglob("*.tmp"))
    again = Command(tmp_path / "log", "train_cam", params=params, **paths).stopped(at="epoch ")
    assert "resumed after step" in again


@pytest.mark.parametrize("after", [0.05, 0.5, 1.5])
def test_ctrl_c_during_imports_ends_cleanly(drawn: Path, tmp_path: Path, after: float) -> None:
    params, paths = trainer("train_cam", drawn, tmp_path)
    write_params(params, train_cam__epochs=200, compute__workers=1)
    process = Command(tmp_path / "log", "train_cam", params=params, **paths)
    if after > 0.1:  # earlier, Python has no handler yet and is ended by the signal
        assert process.stopped(after).splitlines()[-1].startswith("plda")


@pytest.mark.parametrize("after", [0, 2])
def test_ctrl_c_ends_worker_processes(drawn: Path, tmp_path: Path, after: float) -> None:
    names = DataSet(drawn / "data_set").classes
    architecture = Architecture("cam", "resnet10", 16, "frozen", "cam", names)
    save_network(tmp_path / "cam.pt", architecture, build(architecture).state_dict())
    params = write_params(
        tmp_path / "params.yaml",
        compute__devices=2,
        infer_cams__scales=[16.0],
        train_cam__batch_norm="frozen",
    )
    paths = {"data_set": drawn / "data_set", "cam_network": tmp_path / "cam.pt"}
    command = Command(tmp_path / "log", "infer_cams", params=params, **paths, cams=tmp_path / "cams.npz")
    words = command.stopped(after, processes=4)  # including the resource tracker of multiprocessing
    assert words.splitlines()[-1] == "plda infer_cams: stopped by Ctrl-C"
    assert not list(tmp_path.glob("*cams.npz*"))


def test_ctrl_c_leaves_no_partial_data_set(tmp_path: Path) -> None:
    params = write_params(tmp_path / "params.yaml", index_data__creatures__train=100_000)
    paths = {name: tmp_path / "out" / name for name in ("archives", "data_set")}
    command = Command(tmp_path / "log", "index_data", params=params, **paths)
    words = command.stopped(after=1, at="index_data:")
    assert words.splitlines()[-1] == "plda index_data: stopped by Ctrl-C"
    assert list((tmp_path / "out").iterdir()) == []
    write_params(params)
    assert run_stage("index_data", params, **paths) == 0
