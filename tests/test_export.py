"""Exported networks: ONNX gives the output of torch at any size; the README's example runs."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, Refusal, build, encoded, photo
from torch import nn

from plda.__main__ import main
from plda.data.images import read_mask
from plda.models.saved import Architecture, load, save_network
from plda.use import export as exporting
from plda.use.export import FromPixels
from plda.use.network import TrainedNetwork

CLASSES = ("background", "cat", "dog")


def saved(path: Path, backbone: str = "resnet10", output_stride: int = 16, head: str = "lraspp") -> Path:
    torch.manual_seed(0)
    architecture = Architecture("segmenter", backbone, output_stride, "frozen", head, CLASSES, 64)
    save_network(path, architecture, build(architecture).state_dict())
    return path


def export(network: Path, out: Path, *flags: str) -> int:
    return main(["export", "--network", str(network), "--out", str(out), *flags])


@pytest.fixture
def runtime() -> Any:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: run `make export`")
    return pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: run `make export`")


@pytest.mark.parametrize(
    ("backbone", "output_stride", "head"),
    [
        ("mobilenetv2_100", 16, "deeplabv2"),
        ("resnet10", 8, "deeplabv3"),
        ("mobilenetv3_large_100", 16, "lraspp"),
        ("convnext_tiny", 8, "deeplabv2"),  # even kernel sizes, dilated
    ],
)
def test_onnx_export_matches_torch(
    runtime: Any, tmp_path: Path, backbone: str, output_stride: int, head: str
) -> None:
    file, out = saved(tmp_path / "network.pt", backbone, output_stride, head), tmp_path / "network.onnx"
    assert export(file, out, "--licence", "CC0-1.0") == 0
    assert [p.name for p in tmp_path.iterdir() if p != file] == ["network.onnx"], "one file, weights within"
    session = runtime.InferenceSession(out, providers=["CPUExecutionProvider"])
    network = TrainedNetwork(file, device="cpu", precision="32")._network
    for size in ((33, 47), (97, 140)):  # sizes that the export itself does not compare
        image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
        with torch.no_grad():
            expected = FromPixels(network)(image).numpy()
        (scores,) = session.run(["scores"], {"image": image.numpy()})
        assert scores.shape == (1, len(CLASSES), *size)
        np.testing.assert_allclose(scores, expected, atol=1e-3, rtol=0)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == list(CLASSES)
    assert (about["licence"], about["long_side"]) == ("CC0-1.0", "64")
    assert "part of the network" in about["normalisation"]


def test_export_does_not_write_onnx_that_differs(
    runtime: Any, tmp_path: Path, refused: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(runtime.InferenceSession):  # type: ignore[misc, name-defined]
        def run(self, *arguments: Any) -> Any:
            return [scores + 5e-3 for scores in super().run(*arguments)]

    monkeypatch.setattr(runtime, "InferenceSession", Wrong)
    message = refused(export, saved(tmp_path / "network.pt"), tmp_path / "out" / "network.onnx")
    assert "network.onnx: not written: ONNX differs from torch by " in message
    assert list((tmp_path / "out").iterdir()) == []


def test_largest_difference_is_relative_to_largest_score() -> None:
    class Scores(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.float()

    difference = exporting.largest_difference(Scores(), lambda image: image.astype(np.float32) + 0.51)
    assert difference == pytest.approx(0.51 / 255, rel=1e-3)


def test_torch_export_keeps_output_and_adds_metadata(tmp_path: Path) -> None:
    file, out = saved(tmp_path / "network.pt"), tmp_path / "deploy" / "cats.pt"
    assert export(file, out) == 0
    image = photo(70, 50)
    before, after = (TrainedNetwork(path, device="cpu", precision="32").label(image) for path in (file, out))
    assert np.array_equal(before.confidence, after.confidence)
    about = load(out)["about"]
    assert about["classes"] == list(CLASSES)
    assert about["long_side"] == 64
    assert about["normalisation"] == "part of the network; its input is RGB in [0, 1]"
    assert about["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert about["licence"].startswith("Not stated")


def test_export_rejects_invalid_requests(
    tmp_path: Path, refused: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved(tmp_path / "network.pt")
    assert "n.txt: must end in .onnx or .pt" in refused(export, file, tmp_path / "n.txt")
    assert "none.pt: is missing" in refused(export, tmp_path / "none.pt", tmp_path / "n.pt")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "needs the package onnxruntime: run `make export`" in refused(export, file, tmp_path / "n.onnx")
    assert list(tmp_path.iterdir()) == [file]


def test_readme_example_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    (example,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert len(example.splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    saved(Path("network.pt"))
    Path("photo.jpg").write_bytes(encoded(photo(60, 40)))
    exec(example, {})
    assert read_mask(Path("mask.png").read_bytes()).shape == (40, 60)
    assert re.match(r"(background|cat|dog) \d+ %\n", capsys.readouterr().out)
