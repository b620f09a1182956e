"""Several processes train like one; a signal or a lost process does not change the result."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import KINDS, ROOT, Refusal, build, run_stage, small_params, write_params
from test_training import trainer
from torch import distributed, nn

from plda.adaptation.learner import PldaLearner
from plda.compute.parallel import parallel_map
from plda.data.data_set import DataSet
from plda.data.datasets import MaskedCrops, TaggedCrops
from plda.data.images import VOID
from plda.data.index import Entry
from plda.errors import AGAIN, Unfinished
from plda.models.baselines import TagLearner
from plda.models.saved import Architecture, load, save_network
from plda.models.segmenters import MaskLearner
from plda.params import Params, check
from plda.refinement.boundary import BoundaryLearner
from plda.training.checkpoints import Checkpoint
from plda.training.distributed import process_group
from plda.training.loop import _run

STEPS = 20
TRAINERS = ("cam", "plda", "plda, means over labelled pixels", "seam", "segmenter", "boundary")


@dataclass(frozen=True)
class PartlyLabelled:
    """True masks; every second one has only its last quarter, so that processes get parts of unequal size."""

    data: DataSet

    def __call__(self, entry: Entry) -> np.ndarray:
        mask = self.data.true_mask(entry).copy()
        if int(entry.key[-1]) % 2 == 0:
            mask[: 3 * len(mask) // 4] = VOID
        return mask


def learner_of(kind: str, drawn: Path) -> nn.Module:
    """Return the trainer's learner without dropout, which each process draws separately."""
    names = DataSet(drawn / "data_set").classes
    section = "segmenter" if kind == "segmenter" else "cam"
    head = {"segmenter": "deeplabv2", "seam": "seam", "boundary": ""}.get(kind, "cam")
    weights = load(drawn / f"{section}{'s' * (section == 'cam')}.pt")["weights"]
    of = KINDS["boundary" if kind == "boundary" else section]
    network: Any = of.start(Architecture(of.name, "resnet10", 16, "frozen", head, names), weights, 1)
    if kind == "segmenter":
        return MaskLearner(network)
    if kind == "boundary":
        return BoundaryLearner(network, 4)
    if not kind.startswith("plda"):
        return TagLearner(network)
    with torch.no_grad():
        network.head.weight.mul_(12)  # imitates training: small scores label nothing
    changes = {"per_labelled": kind == "plda, means over labelled pixels", "background": "both"}
    settings = check(Params, small_params(), "test").train_cam.adaptation.model_copy(update=changes)
    learner = PldaLearner(network, len(names) - 1, settings)
    for module in learner.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return learner


class Nowhere(Checkpoint):
    """A checkpoint that saves nothing: saving a state after every step takes longer than the step."""

    def load(self) -> None: ...
    def save(self, state: dict[str, Any]) -> None: ...


def losses(drawn: Path, devices: int, rank: int) -> dict[str, pd.DataFrame]:
    """Return each trainer's losses in one of the processes, one row for each of STEPS steps."""
    data, curves = DataSet(drawn / "data_set"), {}
    every = data.training
    for kind in TRAINERS:
        # few images, to be quick; SEAM needs more: with few pixels, rounding changes which maxima count
        data.entries = every[: 12 if kind == "seam" else 4]
        # one step per epoch
        values = {"epochs": STEPS, "batch_size": len(data.entries), "optimizer": "sgd", "lr": 0.001}
        changes = {f"train_cam__{key}": value for key, value in values.items()}
        params = check(Params, small_params(compute__devices=devices, **changes), "test")
        crops: MaskedCrops | TaggedCrops = TaggedCrops(data, params.train_cam, 0)
        if kind in ("segmenter", "boundary"):
            crops = MaskedCrops(data, PartlyLabelled(data), params.train_cam, 0)
        learner, nowhere = learner_of(kind, drawn), Nowhere(Path("nowhere"))
        _, history = _run(learner, crops, params.train_cam, 0, params.compute, nowhere, rank, lambda _: {})
        curves[kind] = pd.DataFrame(history)
    return curves


def test_two_processes_train_like_one(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All losses of all trainers agree at every step for the same effective batch, also in a Slurm job."""
    alone = losses(drawn, 1, 0)
    for name, value in {"NTASKS": "1", "JOB_ID": "7", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)  # Fabric would assume that srun has started the processes
    with process_group(2, "gloo", partial(losses, drawn, 2)):
        shared = losses(drawn, 2, 0)
    for kind in TRAINERS:
        assert len(alone[kind]) == STEPS
        difference = (alone[kind] - shared[kind]).abs().max()
        print(f"{kind}: {difference.to_dict()}")
        assert difference.max() < 1e-4, f"{kind}: {difference}"
    learnt = alone["plda, means over labelled pixels"]
    assert (learnt[["adversary", "supervision"]] > 0).any().all()  # the adaptation was active


def test_devices_must_divide_batch_size(drawn: Path, tmp_path: Path, refused: Refusal) -> None:
    params, paths = trainer("train_cam", drawn, tmp_path)
    trainers = ("train_cam", "train_boundary", "relabel_masks", "train_segmenter")
    batches = {f"{name}__batch_size": 16 for name in trainers}
    write_params(params, compute__devices=8, train_cam__batch_norm="frozen", **batches)
    message = refused(run_stage, "train_cam", params, **paths)
    assert "compute.devices: 8 processes cannot share a batch of 12 equally" in message


def test_two_cpu_processes_require_frozen_batch_norm(drawn: Path, tmp_path: Path, refused: Refusal) -> None:
    params, paths = trainer("train_cam", drawn, tmp_path)
    write_params(params, compute__devices=2)
    message = refused(run_stage, "train_cam", params, **paths)
    assert "compute.devices: 2 processes can train batch norm on GPUs only; set batch_norm: frozen" in message


class Run:
    """A training as Snakemake starts it: from bash, which waits for it, and with tee writing the log."""

    def __init__(self, drawn: Path, folder: Path, devices: int) -> None:
        folder.mkdir(exist_ok=True)
        self.network, self._log = folder / "network.pt", folder / "log"
        self._log.unlink(missing_ok=True)
        params, paths = trainer("train_cam", drawn, folder)
        write_params(
            params,
            compute__devices=devices,
            compute__workers=1,
            train_cam__batch_norm="frozen",
            train_cam__epochs=15,
            train_cam__crop=32,
            train_cam__inspected=0,
        )
        flags = [text for flag, path in paths.items() for text in ("--" + flag.replace("_", "-"), str(path))]
        command = [sys.executable, "-m", "plda", "train_cam", "--params", str(params), *flags]
        self.bash = subprocess.Popen(
            ["bash", "-c", f"set -euo pipefail; {shlex.join(command)} 2>&1 | tee -i {self._log}"],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def training(self) -> "Run":
        """Wait for the first epoch; return self."""
        deadline = time.monotonic() + 300
        while not self._log.exists() or "epoch " not in self._log.read_text():
            assert time.monotonic() < deadline and self.bash.poll() is None, self._log.read_text()
            time.sleep(0.02)
        return self

    @property
    def first(self) -> int:
        """Return the process id of the main process, which starts the others."""
        (pid,) = children(self.bash.pid, "train_cam")
        return pid

    @property
    def second(self) -> int:
        """Return the process id of the second training process."""
        (pid,) = children(self.first, "--multiprocessing-fork")
        return pid

    def end(self) -> tuple[int, str]:
        """Wait until all processes have ended; return the exit status and the log."""
        status = self.bash.wait(timeout=300)
        deadline = time.monotonic() + 60
        while members(self.bash.pid):
            assert time.monotonic() < deadline, "something still runs"
            time.sleep(0.1)
        return status, self._log.read_text()


def children(pid: int, word: str) -> list[int]:
    """Return the children of a process whose command line contains `word`."""
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in pids if word in Path(f"/proc/{child}/cmdline").read_text()]


def members(session: int) -> list[int]:
    """Return the running processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has just ended
            state, _, _, of, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(of) == session and state != "Z":
                found.append(int(folder.name))
    return found


def test_training_resumes_after_signal(drawn: Path, tmp_path: Path) -> None:
    assert Run(drawn, tmp_path / "whole", 1).end()[0] == 0
    run = Run(drawn, tmp_path / "broken", 1).training()
    os.kill(run.first, signal.SIGTERM)
    status, words = run.end()
    assert status == AGAIN
    assert re.search(r"plda train_cam: stopped by a signal after step \d+ of 45; the state is saved", words)
    assert "Traceback" not in words
    run = Run(drawn, tmp_path / "broken", 1).training()
    os.killpg(run.bash.pid, signal.SIGUSR1)  # as Slurm does; bash, tee and data loaders receive it, too
    run.end()
    assert not run.network.exists()
    status, words = Run(drawn, tmp_path / "broken", 1).end()
    assert status == 0
    assert "resumed after step" in words
    assert run.network.read_bytes() == (tmp_path / "whole" / "network.pt").read_bytes()


def test_two_processes_stop_together_and_resume(drawn: Path, tmp_path: Path) -> None:
    """After a signal to one process or the loss of one, a resumed training gives the undisturbed result."""
    assert Run(drawn, tmp_path / "whole", 2).end()[0] == 0

    run = Run(drawn, tmp_path / "broken", 2).training()
    os.kill(run.second, signal.SIGUSR1)
    status, words = run.end()
    assert status == AGAIN
    assert "stopped by a signal after step" in words

    run = Run(drawn, tmp_path / "broken", 2).training()
    os.kill(run.second, signal.SIGKILL)
    status, words = run.end()
    assert status == AGAIN
    assert "process 2 of 2 was killed by SIGKILL, so all processes are stopped; run the same command" in words
    assert "Traceback" not in words

    run = Run(drawn, tmp_path / "broken", 2).training()
    os.kill(run.first, signal.SIGKILL)
    assert run.end()[0] == 128 + signal.SIGKILL  # the second process has ended, too

    status, words = Run(drawn, tmp_path / "broken", 2).end()
    assert status == 0
    assert "resumed after step" in words
    assert run.network.read_bytes() == (tmp_path / "whole" / "network.pt").read_bytes()


def absent(_rank: int) -> None:
    time.sleep(600)


def test_team_times_out_on_unresponsive_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("plda.training.distributed.LIMIT", timedelta(seconds=5))
    try:
        with (
            pytest.raises(Unfinished, match="has not answered for 0:00:05"),
            process_group(2, "gloo", absent),
        ):
            distributed.all_reduce(torch.ones(1))
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def test_second_signal_ends_process_at_once() -> None:
    code = """
import os, signal
from plda.training.stopping import listening
with listening() as asked:
    assert not asked()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert asked()
    print("asked", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print("still there")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "asked\n")


def test_stages_give_same_files_with_two_processes(drawn: Path, tmp_path: Path) -> None:
    data = {"data_set": drawn / "data_set"}
    names = DataSet(data["data_set"]).classes
    networks = {}
    for kind, head in {"cam": "cam", "boundary": "", "segmenter": "lraspp"}.items():
        architecture = Architecture(kind, "resnet10", 16, "frozen", head, names)
        networks[kind] = tmp_path / f"{kind}.pt"
        save_network(networks[kind], architecture, build(architecture).state_dict())
    files = []
    for devices in (1, 2):
        out = tmp_path / str(devices)
        out.mkdir()
        params = write_params(out / "params.yaml", compute__devices=devices)
        cams = out / "cams.npz"
        assert run_stage("infer_cams", params, **data, cam_network=networks["cam"], cams=cams) == 0
        outputs = {name: out / name for name in ("pseudo_masks", "refined_cams", "background_scores")}
        inputs = data | {"cams": cams, "boundary_network": networks["boundary"]}
        assert run_stage("make_masks", params, **inputs, **outputs) == 0
        inputs = data | {"segmenter": networks["segmenter"]}
        made = {"predictions": out / "predictions", "estimates": out / "estimates.csv"}
        assert run_stage("predict_masks", params, **inputs, **made) == 0
        params.unlink()
        files.append({p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()})
    assert len(files[0]) == 3 + (12 + 1) + 4 + 1  # the pseudo-masks have the decisions of the review
    assert files[0] == files[1]


def test_spread_reports_killed_worker_as_unfinished() -> None:
    compute = check(Params, small_params(compute__devices=2), "test").compute
    with (
        pytest.raises(Unfinished, match="worker process was killed"),
        parallel_map(Killed, compute, 3) as run,
    ):
        list(run([1, 2, 3]))


class Killed:
    """A worker that is killed by its first item."""

    def __init__(self, device: torch.device) -> None: ...
    def load(self, item: int) -> int:
        return item

    def __call__(self, item: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return item
