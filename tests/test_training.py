"""The training loop: order, schedule, history, and a kill that does not change the result."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, Refusal, run_stage, small_params, write_params

from plda.data.data_set import DataSet
from plda.data.index import write_index
from plda.errors import InputError
from plda.masks.cams import Cams
from plda.masks.folder import write_mask
from plda.models.backbones import Backbone
from plda.models.baselines import CAM, TagLearner
from plda.models.cam import CamNetwork
from plda.models.saved import Architecture, load, load_network, save_network
from plda.params import Params, Training, check
from plda.training.checkpoints import Checkpoint, fingerprint
from plda.training.loop import make_optimizer, set_lr
from plda.training.sampler import BatchSampler


def training(**changes: object) -> Training:
    changed = {f"train_cam__{name}": value for name, value in changes.items()}
    return check(Params, small_params(**changed), "test").train_cam


def test_order_permutes_each_epoch_and_starts_anywhere() -> None:
    order = list(BatchSampler(10, 3, 4, seed=5))
    assert len(order) == 4 * 3
    for epoch in range(4):
        items = [item for batch in order[3 * epoch : 3 * epoch + 3] for item in batch]
        assert len({position for _, position in items}) == 9
        assert {e for e, _ in items} == {epoch}
    assert order[:3] != [[(0, p) for _, p in b] for b in order[3:6]]
    for start in range(12):
        assert list(BatchSampler(10, 3, 4, seed=5, start=start)) == order[start:]
    assert list(BatchSampler(10, 3, 4, seed=6)) != order


def test_stop_after_keeps_the_full_schedule(drawn: Path, tmp_path: Path) -> None:
    assert list(BatchSampler(10, 3, 4, seed=5, stop_after=2)) == list(BatchSampler(10, 3, 4, seed=5))[:6]
    histories = []
    for stop in (None, 3):
        params, paths = trainer("train_cam", drawn, tmp_path)
        schedule = {"train_cam__epochs": 5, "train_cam__stop_after": stop}
        write_params(params, train_cam__adaptation__enabled=False, **schedule)
        assert run_stage("train_cam", params, **paths) == 0
        histories.append(pd.read_csv(tmp_path / "history.csv"))
    assert len(histories[0]) == 5
    pd.testing.assert_frame_equal(histories[0][:3], histories[1])


def test_order_splits_batches_between_processes() -> None:
    alone = list(BatchSampler(11, 4, 2, seed=0))
    two = [list(BatchSampler(11, 4, 2, seed=0, rank=rank, world=2)) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*two, strict=True)] == [sorted(batch) for batch in alone]


def test_order_uses_one_batch_for_small_data_set() -> None:
    assert [len(batch) for batch in BatchSampler(3, 16, 2, seed=0)] == [3, 3]


def test_optimizer_scales_head_lr_and_decays_lr() -> None:
    settings = training(lr=0.1, head_lr_factor=10.0, poly_power=0.9, optimizer="sgd")
    network = CamNetwork(Backbone("resnet10", batch_norm="frozen"), 3)
    optimizer = make_optimizer(TagLearner(network), settings)
    assert set_lr(optimizer, settings, 0.0) == pytest.approx(0.1)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.1, 1.0])
    assert set_lr(optimizer, settings, 0.5) == pytest.approx(0.1 * 0.5**0.9)
    parameters = [p for g in optimizer.param_groups for p in g["params"]]
    assert len(parameters) == len([p for p in network.parameters() if p.requires_grad])
    assert any(p is network.head.weight for p in optimizer.param_groups[1]["params"])


def trainer(name: str, drawn: Path, out: Path) -> tuple[Path, dict[str, Path]]:
    """Return params and paths of a trainer on the drawn scenes; the segmenter uses the true masks."""
    params = write_params(
        out / "params.yaml",
        compute__workers=1,
        train_cam__epochs=8,
        train_segmenter__epochs=5,
        train_segmenter__head="deeplabv3",  # has dropout
    )
    paths = {"data_set": drawn / "data_set", "checkpoints": out / "checkpoints"}
    if name == "train_cam":
        return params, paths | {
            "cam_backbone": drawn / "cams.pt",
            "cam_network": out / "network.pt",
            "cam_history": out / "history.csv",
            "cam_machine": out / "machine.json",
        }
    data = DataSet(drawn / "data_set")
    for entry in data.training:
        write_mask(out / "masks", entry, data.true_mask(entry))
    classifier = Architecture("cam", "resnet10", 16, "trained", "cam", data.classes)
    untrained = CAM.start(classifier, load(drawn / "cams.pt")["weights"], seed=0)
    save_network(out / "cam.pt", classifier, untrained.state_dict())
    return params, paths | {
        "cam_network": out / "cam.pt",
        "segmenter_backbone": drawn / "segmenter.pt",
        "training_masks": out / "masks",
        "segmenter": out / "network.pt",
        "segmenter_history": out / "history.csv",
        "segmenter_machine": out / "machine.json",
    }


def start(name: str, params: Path, paths: dict[str, Path]) -> "subprocess.Popen[str]":
    flags = [text for flag, path in paths.items() for text in ("--" + flag.replace("_", "-"), str(path))]
    return subprocess.Popen(
        [sys.executable, "-m", "plda", name, "--params", str(params), *flags],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_checkpoint(folder: Path, process: "subprocess.Popen[str]") -> Path:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        found = list(folder.glob("*/last.pt"))
        if found:
            return found[0]
        time.sleep(0.01)
    raise AssertionError(f"no checkpoint: {process.communicate()[1]}")


@pytest.mark.parametrize("name", ["train_cam", "train_segmenter"])
def test_killed_training_resumes_bit_for_bit(drawn: Path, tmp_path: Path, name: str) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    unbroken = start(name, *trainer(name, drawn, whole))
    assert "resumed" not in unbroken.communicate()[1]

    params, paths = trainer(name, drawn, broken)
    first = start(name, params, paths)
    last = wait_for_checkpoint(broken / "checkpoints", first)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert not (broken / "network.pt").exists()
    step = load(last)["step"]
    second = start(name, params, paths)
    assert f"resumed after step {step}" in second.communicate()[1]
    assert second.returncode == 0
    for file in ("network.pt", "history.csv"):
        assert (broken / file).read_bytes() == (whole / file).read_bytes(), file
    assert list((broken / "checkpoints").glob("*/last.pt")) == []  # a finished training leaves no state


def test_full_supervision_uses_true_masks(drawn: Path, tmp_path: Path, refused: Refusal) -> None:
    params, paths = trainer("train_segmenter", drawn, tmp_path)  # true masks in place of pseudo-masks
    write_params(params, train_segmenter__epochs=1)
    assert run_stage("train_segmenter", params, **paths) == 0
    full = tmp_path / "full"
    paths |= {name: full / name for name in ("training_masks", "segmenter", "segmenter_history")}
    write_params(params, train_segmenter__epochs=1, train_segmenter__supervision="masks")
    assert run_stage("train_segmenter", params, **paths) == 0
    assert (full / "segmenter").read_bytes() == (tmp_path / "network.pt").read_bytes()

    entries = DataSet(drawn / "data_set").entries
    paths["data_set"] = shutil.copytree(drawn / "data_set", tmp_path / "data_set")
    write_index(tmp_path / "data_set/index.csv", [entries[0], entries[1]._replace(mask=""), *entries[2:]])
    paths["segmenter"] = tmp_path / "none.pt"
    message = refused(run_stage, "train_segmenter", params, **paths)
    assert f"data_set/index.csv: field mask: {entries[1].image} has no true mask" in message
    assert "(1 of 12 training images have none)" in message
    assert not paths["segmenter"].exists()


def test_train_cam_lowers_loss_and_writes_history(drawn: Path, tmp_path: Path) -> None:
    params, paths = trainer("train_cam", drawn, tmp_path)
    write_params(params, train_cam__epochs=8, train_cam__adaptation__enabled=False)
    assert run_stage("train_cam", params, **paths) == 0
    history = pd.read_csv(tmp_path / "history.csv")
    assert list(history.columns[:4]) == ["epoch", "step", "lr", "loss"]
    assert {name.partition("_")[0] for name in history.columns[4:]} == {"train", "val"}
    assert history["epoch"].tolist() == list(range(1, 9))
    assert history["step"].tolist() == list(range(3, 25, 3))
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    classes = DataSet(drawn / "data_set").classes
    assert isinstance(load_network(tmp_path / "network.pt", CAM, classes), CamNetwork)


@pytest.mark.parametrize(
    ("baseline", "parts"), [("cam", ["tags"]), ("seam", ["tags", "minimum", "equivariance", "cross"])]
)
def test_plda_trains_cam_and_seam_in_mixed_precision(
    drawn: Path, tmp_path: Path, baseline: str, parts: list[str]
) -> None:
    params, paths = trainer("train_cam", drawn, tmp_path)
    adaptation = small_params()["train_cam"]["adaptation"]
    adaptation |= {"enabled": True, "background": "image", "adversary": 1.0, "pamr_scale": 1, "warmup": 0.0}
    write_params(
        params,
        compute__precision="bf16",
        train_cam__baseline=baseline,
        train_cam__epochs=4,
        train_cam__adaptation=adaptation,
    )
    assert run_stage("train_cam", params, **paths) == 0
    history = pd.read_csv(tmp_path / "history.csv")
    losses = history[["loss", *parts, "adversary", "supervision"]]
    assert list(history.columns[3 : 3 + losses.shape[1]]) == list(losses)
    assert np.isfinite(losses.to_numpy()).all()
    assert history["tags"].iloc[-1] < history["tags"].iloc[0]
    assert (history[["adversary", "train_source", "train_target"]] > 0).all(axis=None)
    data_set, cams = drawn / "data_set", tmp_path / "cams.npz"
    made = {"cam_network": tmp_path / "network.pt", "cams": cams}
    assert run_stage("infer_cams", params, data_set=data_set, **made) == 0
    entry = DataSet(data_set).training[0]
    assert 0.5 < float(Cams(cams).read(entry.key).max()) <= 1


def test_seed_determines_network(drawn: Path, tmp_path: Path) -> None:
    networks = []
    for seed in (0, 1, 0):
        params, paths = trainer("train_cam", drawn, tmp_path)
        write_params(params, train_cam__epochs=1, seed=seed)
        assert run_stage("train_cam", params, **paths) == 0
        networks.append((tmp_path / "network.pt").read_bytes())
    assert networks[0] == networks[2] != networks[1]


def test_second_training_process_is_refused(
    drawn: Path, tmp_path: Path, refused: Refusal, monkeypatch
) -> None:
    params, paths = trainer("train_cam", drawn, tmp_path)
    folders: list[Path] = []
    original = Checkpoint.__init__

    def remember(self: Checkpoint, folder: Path) -> None:
        folders.append(folder)
        original(self, folder)

    monkeypatch.setattr(Checkpoint, "__init__", remember)
    write_params(params, train_cam__epochs=1)
    assert run_stage("train_cam", params, **paths) == 0
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folders[0])], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        message = refused(run_stage, "train_cam", params, **paths)
        assert f"{folders[0]}: another process is training" in message
    finally:
        holder.kill()
        holder.communicate()
    assert run_stage("train_cam", params, **paths) == 0  # the lock is released when its process ends


HOLD = """
import sys, time
from pathlib import Path
from plda.training.checkpoints import Checkpoint
with Checkpoint(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(600)
"""


def test_checkpoint_error_names_unwritable_path(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    checkpoint = Checkpoint(tmp_path / "checkpoints/key")
    refusal = pytest.raises(InputError, match="key: cannot be written: a part of the path is a file")
    with refusal, checkpoint.locked():
        pass


def test_fingerprint_differs_between_trainings(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "x"
    file.write_text("1")
    keys = [fingerprint({"lr": 1}, [file]), fingerprint({"lr": 2}, [file])]
    keys += [fingerprint({"lr": 1}, [tmp_path / "data"])]
    file.write_text("2")
    keys += [fingerprint({"lr": 1}, [file])]
    file.rename(tmp_path / "data" / "y")
    keys += [fingerprint({"lr": 1}, [tmp_path / "data"])]  # a file of another name
    assert len(set(keys)) == len(keys)


def test_missing_device_is_refused(drawn: Path, tmp_path: Path, refused: Refusal) -> None:
    missing = next(
        d for d, there in (("mps", torch.backends.mps), ("cuda", torch.cuda)) if not there.is_available()
    )
    params, paths = trainer("train_cam", drawn, tmp_path)
    write_params(params, compute__device=missing)
    message = refused(run_stage, "train_cam", params, **paths)
    assert f"compute.device: this machine has no '{missing}'" in message
