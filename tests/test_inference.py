"""Networks prepared for inference: folded batch norm, precision and batches."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import build, run_stage, write_params
from torch import nn

from benchmarks.backbones import own_stride
from plda.compute import device as devices
from plda.data.data_set import DataSet
from plda.data.images import read_mask
from plda.masks.cams import Cams
from plda.models.inference import Inference, fold_batch_norm
from plda.models.saved import Architecture, save_network

CPU = torch.device("cpu")
FOLDED = ("resnet10", "resnet50", "mobilenetv2_100", "tf_efficientnet_lite0", "densenet121", "resnet38d")
LEFT = {"densenet121": 62, "resnet38d": 17}  # also have batch norm before convolutions
CLASSES = ("background", "cat", "dog")


def with_statistics(architecture: Architecture) -> Any:
    """Return a network with nontrivial batch norm statistics."""
    torch.manual_seed(0)
    network: Any = build(architecture)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)  # type: ignore[union-attr,operator]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr,operator]
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, std=0.1)
    return network.eval()


@pytest.mark.parametrize("backbone", FOLDED)
@pytest.mark.parametrize("batch_norm", ["trained", "frozen"])
def test_fold_batch_norm_keeps_output(backbone: str, batch_norm: str) -> None:
    head = "lraspp" if batch_norm == "trained" else "deeplabv3"
    stride = own_stride(backbone)
    network = with_statistics(Architecture("segmenter", backbone, stride, batch_norm, head, CLASSES))
    image = torch.rand(1, 3, 65, 97)
    with torch.no_grad():
        expected = network(image)
        fold_batch_norm(network)
        found = network(image)
    assert (found - expected).abs().max() < 1e-5 * max(1, expected.abs().max())
    left = sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    assert left == LEFT.get(backbone, 0)


@pytest.mark.parametrize(("kind", "head"), [("cam", "cam"), ("cam", "seam"), ("segmenter", "deeplabv2")])
def test_inference_in_bfloat16_is_close_to_float32(kind: str, head: str) -> None:
    network = with_statistics(Architecture(kind, "mobilenetv2_100", 16, "frozen", head, CLASSES))
    images = torch.randn(2, 3, 64, 64) * network.backbone.deviation + network.backbone.mean
    said = {}
    for dtype in (torch.float32, torch.bfloat16):
        output = Inference(copy.deepcopy(network), CPU, dtype)(images)
        said[dtype] = output if kind == "segmenter" else output.scores
        assert said[dtype].dtype == torch.float32
    error = (said[torch.bfloat16] - said[torch.float32]).abs().mean()
    assert 0 < error < 0.05 * said[torch.float32].std()


def test_inference_dtype_depends_on_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert devices.inference_dtype("auto", CPU) == torch.bfloat16
    assert devices.inference_dtype("32", CPU) == torch.float32
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "neon": True})
    assert devices.inference_dtype("auto", CPU) == torch.float32
    assert devices.inference_dtype("bf16", CPU) == torch.bfloat16


def test_batched_stages_match_single_images(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: several images of equal size at a time, loaded ahead by threads."""
    data = DataSet(drawn / "data_set")
    files = {}
    for kind, head in (("cam", "cam"), ("segmenter", "deeplabv2")):
        architecture = Architecture(kind, "resnet10", 16, "frozen", head, data.classes)
        weights = with_statistics(architecture).state_dict()
        if kind == "cam":
            weights["head.weight"].abs_()  # so that it responds to every tag
        save_network(tmp_path / f"{kind}.pt", architecture, weights)
    for together, workers in ((1, 0), (8, 2)):
        out = tmp_path / str(together)
        out.mkdir()
        for stage in ("infer_cams", "predict_masks"):
            monkeypatch.setattr(f"plda.stages.{stage}.together_on", lambda _, n=together: n)
        params = write_params(
            out / "params.yaml",
            compute__workers=workers,
            compute__precision="32",
            infer_cams__scales=[0.5, 1.0],
        )
        paths = {"cam_network": tmp_path / "cam.pt", "cams": out / "cams.npz"}
        assert run_stage("infer_cams", params, data_set=data.folder, **paths) == 0
        paths = {"segmenter": tmp_path / "segmenter.pt", "predictions": out / "masks"}
        paths["estimates"] = out / "estimates.csv"
        assert run_stage("predict_masks", params, data_set=data.folder, **paths) == 0
        files[together] = {p.name: p.read_bytes() for p in (out / "masks").rglob("*.png")}
    assert len(files[1]) == 4 and files[1].keys() == files[8].keys()
    with np.load(tmp_path / "1" / "cams.npz") as archive:
        keys = list(archive)
    one, many = (Cams(tmp_path / name / "cams.npz") for name in ("1", "8"))
    assert len(keys) == 12
    for key in keys:
        assert (one.read(key) - many.read(key)).abs().max() < 2e-3
        assert one.read(key).amax() > 0.9
    one, many = (pd.read_csv(tmp_path / name / "estimates.csv") for name in ("1", "8"))
    assert list(one["image"]) == list(many["image"]) == [e.image for e in data.split("val")]
    assert one["expected_iou"].to_numpy() == pytest.approx(many["expected_iou"].to_numpy(), abs=0.1)
    differ = [np.mean(read_mask(files[1][name]) != read_mask(files[8][name])) for name in files[1]]
    assert max(differ) < 2e-3
