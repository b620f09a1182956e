"""Several processes do what one does; a signal or a lost process costs them nothing."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Refusal, run_stage, small_params, write_params
from test_training import trainer
from torch import nn

from plda.adaptation.learner import PldaLearner, Switches
from plda.data.archive import Archive
from plda.data.classes import read_classes
from plda.data.datasets import MaskedCrops, TaggedCrops
from plda.data.images import VOID
from plda.data.index import Entry, read_index
from plda.data.loading import load_true_mask
from plda.masks.boundary import BoundaryLearner
from plda.models.baselines import TagLearner
from plda.models.saved import Architecture, load
from plda.models.segmenters import MaskLearner
from plda.params import Params, check
from plda.training.checkpoints import Checkpoint
from plda.training.loop import _run
from plda.training.team import team

STEPS = 20
TRAINERS = ("cam", "plda", "plda, means over labelled pixels", "seam", "segmenter", "boundary")


@dataclass(frozen=True)
class PartlyLabelled:
    """The true mask of an image, or of every second image the last quarter: parts of unlike size."""

    archive: Archive

    def __call__(self, entry: Entry) -> np.ndarray:
        mask = load_true_mask(self.archive, entry.mask).copy()
        if int(entry.key[-1]) % 2 == 0:
            mask[: 3 * len(mask) // 4] = VOID
        return mask


def learner_of(kind: str, drawn: Path) -> nn.Module:
    """The trainer's learner, without dropout: that is drawn for each process by itself."""
    names = read_classes(drawn / "classes.txt")
    section = "segmenter" if kind == "segmenter" else "cam"
    head = {"segmenter": "deeplabv2", "seam": "seam", "boundary": ""}.get(kind, "cam")
    network = Architecture(
        "boundary" if kind == "boundary" else section, "resnet10", 16, "frozen", head, names
    ).start(load(drawn / f"{section}{'s' * (section == 'cam')}.pt")["weights"], 0)
    if kind == "segmenter":
        return MaskLearner(network)
    if kind == "boundary":
        return BoundaryLearner(network, 4)
    if not kind.startswith("plda"):
        return TagLearner(network)
    with torch.no_grad():
        network.head.weight.mul_(10)  # as if it had learnt: so small a score labels nothing
    switches = small_params()["train_cam"]["adaptation"]
    switches.pop("enabled")
    switches |= {"per_labelled": kind == "plda, means over labelled pixels", "background": "both"}
    learner = PldaLearner(network, len(names) - 1, Switches(**switches))
    for module in learner.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return learner


class Nowhere(Checkpoint):
    """Keeps nothing: a state for every step would take longer than the step."""

    def load(self) -> None: ...
    def save(self, state: dict[str, Any]) -> None: ...


def losses(drawn: Path, devices: int, rank: int) -> dict[str, pd.DataFrame]:
    """What each trainer's losses are in one of the processes, a row for each of STEPS steps."""
    archive, names = Archive(drawn / "images.zip"), read_classes(drawn / "classes.txt")
    curves = {}
    for kind in TRAINERS:
        # few, to be quick; SEAM takes maxima, where a rounding decides what counts: too much with few pixels
        entries = read_index(drawn / "index.csv", "train")[: 12 if kind == "seam" else 4]
        changes = {"epochs": STEPS, "batch_size": len(entries), "optimizer": "sgd", "lr": 0.001}
        section = small_params()["train_cam"] | changes  # an epoch is a step
        params = check(Params, small_params(compute__devices=devices, train_cam=section), "test")
        data: MaskedCrops | TaggedCrops = TaggedCrops(entries, archive, names, params.train_cam, 0)
        if kind in ("segmenter", "boundary"):
            data = MaskedCrops(entries, archive, PartlyLabelled(archive), params.train_cam, 0)
        learner, nowhere = learner_of(kind, drawn), Nowhere(Path("nowhere"))
        _, history = _run(learner, data, params.train_cam, 0, params.compute, nowhere, rank, lambda _: {})
        curves[kind] = pd.DataFrame(history)
    return curves


def test_two_processes_train_as_one(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the same effective batch, step by step, every loss of every trainer; in a job of Slurm, too."""
    alone = losses(drawn, 1, 0)
    for name, value in {"NTASKS": "1", "JOB_ID": "7", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)  # Fabric takes it for one whose processes srun has started
    with team(2, "gloo", partial(losses, drawn, 2)):
        shared = losses(drawn, 2, 0)
    for kind in TRAINERS:
        assert len(alone[kind]) == STEPS
        difference = (alone[kind] - shared[kind]).abs().max()
        print(f"{kind}: {difference.to_dict()}")
        assert difference.max() < 1e-4, f"{kind}: {difference}"
    learnt = alone["plda, means over labelled pixels"]
    assert (learnt[["adversary", "supervision"]] > 0).any().all()  # so there was something to share


def test_a_share_of_a_batch_is_equal(drawn: Path, tmp_path: Path, refused: Refusal) -> None:
    params, paths = trainer("train_cam", drawn, tmp_path)
    write_params(params, compute__devices=2, train_cam__batch_size=3, train_cam__batch_norm="frozen")
    message = refused(run_stage, "train_cam", params, **paths)
    assert "compute.devices: 2 processes cannot share a batch of 3 equally" in message


def test_batch_norm_is_trained_together_or_not_at_all(drawn: Path, tmp_path: Path, refused: Refusal) -> None:
    params, paths = trainer("train_cam", drawn, tmp_path)
    write_params(params, compute__devices=2)
    message = refused(run_stage, "train_cam", params, **paths)
    assert (
        "compute.devices: 2 processes train batch norm on GPUs only; here set batch_norm: frozen" in message
    )
