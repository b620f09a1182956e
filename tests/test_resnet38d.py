"""ResNet-38d: size, features compared with plain functions, and the two weight file formats."""

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BASELINES, Refusal, run_stage, write_params
from torch import Tensor
from torch.nn import functional as F

from plda.errors import InputError
from plda.models import resnet38d
from plda.models.backbones import STAGES, Backbone
from plda.models.baselines import TagLearner, build_baseline
from plda.models.mxnet_file import is_mxnet_file, read_mxnet_file
from plda.models.saved import load
from plda.models.segmenters import Segmenter
from plda.vision import timm

# blocks as in the PyTorch networks of AffinityNet and SEAM at stride 8; channels in multiples of 64:
# name, in, middle, out, stride, dilation of the first convolution, of the second
WIDE = [("b2", 1, 2, 2, 2, 1, 1), ("b2_1", 2, 2, 2, 1, 1, 1), ("b2_2", 2, 2, 2, 1, 1, 1)]
WIDE += [("b3", 2, 4, 4, 2, 1, 1), ("b3_1", 4, 4, 4, 1, 1, 1), ("b3_2", 4, 4, 4, 1, 1, 1)]
WIDE += [("b4", 4, 8, 8, 2, 1, 1), *((f"b4_{i}", 8, 8, 8, 1, 1, 1) for i in range(1, 6))]
WIDE += [("b5", 8, 8, 16, 1, 1, 2), ("b5_1", 16, 8, 16, 1, 2, 2), ("b5_2", 16, 8, 16, 1, 2, 2)]
BOTTLENECK = [("b6", 16, 8, 16, 32), ("b7", 32, 16, 32, 64)]  # name, in, middle, middle, out; dilation 4


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use 2 channels instead of 64: a thousandth of the weights."""
    monkeypatch.setattr(resnet38d, "WIDTH", 2)


def drawn_weights() -> dict[str, Tensor]:
    """Return weights of a network with nontrivial batch norm."""
    torch.manual_seed(1)
    weights = resnet38d.ResNet38d().state_dict()
    for value in weights.values():
        if value.ndim == 1:
            torch.nn.init.uniform_(value, 0.5, 1.5)
    return {name: value for name, value in weights.items() if value.ndim}  # as in the file: no batch counts


def loaded(weights: dict[str, Tensor], output_stride: int = 8) -> Backbone:
    backbone = Backbone("resnet38d", output_stride=output_stride).eval()
    backbone.load(weights)
    return backbone


# --- the network


def test_resnet38d_has_published_size_and_shapes() -> None:
    with torch.device("meta"):
        backbone = Backbone("resnet38d", output_stride=8)
        features = backbone(torch.zeros(1, 3, 448, 448))
    assert {name: tuple(f.shape[1:]) for name, f in features.items()} == {
        "stage1": (256, 112, 112),
        "stage2": (512, 56, 56),
        "stage3": (1024, 56, 56),
        "stage4": (4096, 56, 56),
    }
    weights = 3 * 3 * 3 * 64 + 2 * 4096  # conv1a, bn7
    for _, inside, middle, outside, stride, *_ in WIDE:
        inside, middle, outside = 64 * inside, 64 * middle, 64 * outside
        weights += 2 * inside + 9 * inside * middle + 2 * middle + 9 * middle * outside
        weights += inside * outside if stride > 1 or inside != outside else 0
    for _, inside, middle1, middle2, outside in BOTTLENECK:
        inside, middle1, middle2, outside = 64 * inside, 64 * middle1, 64 * middle2, 64 * outside
        weights += 2 * inside + inside * middle1 + 2 * middle1 + 9 * middle1 * middle2
        weights += 2 * middle2 + middle2 * outside + inside * outside
    assert sum(p.numel() for p in backbone.parameters()) == weights == 105_070_912


def test_resnet38d_is_deterministic() -> None:
    backbone = Backbone("resnet38d", output_stride=8).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        first, second = backbone(image), backbone(image)
    assert [tuple(f.shape) for f in first.values()] == [
        (1, 256, 16, 16),
        (1, 512, 8, 8),
        (1, 1024, 8, 8),
        (1, 4096, 8, 8),
    ]
    for stage in STAGES:
        assert torch.equal(first[stage], second[stage])
        assert first[stage].isfinite().all() and first[stage].any()


@pytest.mark.usefixtures("narrow")
def test_resnet38d_supports_every_output_stride() -> None:
    for output_stride in (32, 16, 8):
        features = Backbone("resnet38d", output_stride=output_stride).eval()(torch.randn(1, 3, 96, 64))
        for f, stride in zip(features.values(), (4, 8, 16, 32), strict=True):
            stride = min(stride, output_stride)
            assert f.shape[-2:] == (96 // stride, 64 // stride)


def by_functions(image: Tensor, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Compute conv3 to conv6 of the published networks with plain functions."""

    def activated(x: Tensor, name: str) -> Tensor:
        mean, var, gamma, beta = (
            weights[f"{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * gamma + beta).clamp(min=0)

    def convolved(x: Tensor, name: str, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        padding = dilation if weight.shape[-1] == 3 else 0
        return F.conv2d(x, weight, None, stride, padding, dilation)

    entered = {}
    x = convolved(image, "conv1a")
    for name, inside, _, outside, stride, dilation1, dilation2 in WIDE:
        a = entered[name] = activated(x, f"{name}.bn_branch2a")
        branch2 = convolved(a, f"{name}.conv_branch2a", stride, dilation1)
        branch2 = activated(branch2, f"{name}.bn_branch2b1")
        branch2 = convolved(branch2, f"{name}.conv_branch2b1", 1, dilation2)
        same = inside == outside and stride == 1
        x = branch2 + (x if same else convolved(a, f"{name}.conv_branch1", stride))
    for name, *_ in BOTTLENECK:
        a = entered[name] = activated(x, f"{name}.bn_branch2a")
        branch2 = activated(convolved(a, f"{name}.conv_branch2a"), f"{name}.bn_branch2b1")
        branch2 = activated(convolved(branch2, f"{name}.conv_branch2b1", 1, 4), f"{name}.bn_branch2b2")
        x = convolved(a, f"{name}.conv_branch1") + convolved(branch2, f"{name}.conv_branch2b2")
    outcome = activated(x, "bn7")
    return dict(zip(STAGES, (entered["b4"], entered["b5"], entered["b6"], outcome), strict=True))


@pytest.mark.usefixtures("narrow")
def test_resnet38d_features_match_published_network() -> None:
    weights = {name: value.double() for name, value in drawn_weights().items()}
    image = torch.randn(2, 3, 41, 32, dtype=torch.float64)
    with torch.no_grad():
        backbone = loaded(weights).double()
        ours, theirs = backbone(image), by_functions(backbone.normalise(image), weights)
    for stage in STAGES:
        assert theirs[stage].any()
        torch.testing.assert_close(ours[stage], theirs[stage], rtol=1e-9, atol=0)


@pytest.mark.usefixtures("narrow")
def test_resnet38d_dropout_matches_published_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone("resnet38d", batch_norm="frozen").train()
    image, drop, rates = torch.rand(1, 3, 64, 64), F.dropout2d, []
    monkeypatch.setattr(F, "dropout2d", lambda x, p, on: rates.append(p) or drop(x, p, on))
    backbone(image)
    assert [rate for rate in rates if rate] == [0.3, 0.3, 0.5, 0.5]
    first, second = backbone(image), backbone(image)
    assert torch.equal(first["stage3"], second["stage3"])
    assert not torch.equal(first["stage4"], second["stage4"])


@pytest.mark.usefixtures("narrow")
def test_frozen_batch_norm_stays_constant_in_training() -> None:
    backbone = Backbone("resnet38d", batch_norm="frozen").train()
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=1.0)
    backbone(torch.randn(2, 3, 64, 64))["stage4"].sum().backward()
    optimizer.step()
    same = [name for name, value in backbone.network.state_dict().items() if torch.equal(value, before[name])]
    norms = [name for name in before if before[name].ndim < 2]
    assert len(norms) == 5 * (2 * len(WIDE) + 3 * len(BOTTLENECK) + 1)
    assert same == norms


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("baseline", BASELINES)
def test_baselines_train_on_resnet38d(baseline: str) -> None:
    torch.manual_seed(0)
    network = build_baseline(baseline, Backbone("resnet38d", output_stride=8, batch_norm="frozen"), 3)
    learner = TagLearner(network).train()
    optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=0.01)
    before = {name: p.detach().clone() for name, p in learner.named_parameters() if p.requires_grad}
    loss = learner({"image": torch.randn(2, 3, 64, 64), "tags": torch.tensor([[1.0, 0, 1], [0, 1, 0]])}, 0.0)
    loss["loss"].backward()
    optimizer.step()
    assert loss["loss"].isfinite()
    changed = {name for name, p in learner.named_parameters() if name in before and (p != before[name]).any()}
    assert changed == before.keys()


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("head", ["deeplabv2", "deeplabv3", "lraspp"])
def test_segmenter_heads_fit_resnet38d(head: str) -> None:
    network = Segmenter(Backbone("resnet38d", output_stride=8), head, classes=3).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 3, 65, 90)).shape == (1, 3, 65, 90)


# --- the files


def in_version_0(array: np.ndarray, kind: int) -> bytes:
    sides = struct.pack(f"<{1 + array.ndim}I", array.ndim, *array.shape)
    return sides + struct.pack("<iii", 2, 0, kind) + array.tobytes()


def in_version_1(array: np.ndarray, kind: int) -> bytes:
    sides = struct.pack(f"<I{array.ndim}q", array.ndim, *array.shape)
    return struct.pack("<I", 0xF993FAC8) + sides + struct.pack("<iii", 1, 3, kind) + array.tobytes()


def in_version_2(array: np.ndarray, kind: int) -> bytes:
    sides = struct.pack(f"<I{array.ndim}q", array.ndim, *array.shape)
    return struct.pack("<Ii", 0xF993FAC9, 0) + sides + struct.pack("<iii", 1, 0, kind) + array.tobytes()


KINDS = {"float32": 0, "float64": 1, "float16": 2}
VERSIONS = [in_version_0, in_version_1, in_version_2]
Version = Callable[[np.ndarray, int], bytes]


def written(arrays: dict[str, np.ndarray], version: Version = in_version_0) -> bytes:
    content = struct.pack("<QQQ", 0x112, 0, len(arrays))
    content += b"".join(version(array, KINDS[array.dtype.name]) for array in arrays.values())
    content += struct.pack("<Q", len(arrays))
    return content + b"".join(struct.pack("<Q", len(name)) + name.encode() for name in arrays)


def released(weights: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Return the arrays of the authors' file by name, including the classifier."""
    arrays = {}
    blocks = {"conv1a": "conv1a", "bn7": "bn7"}
    for name, *_ in [*WIDE, *BOTTLENECK]:
        level, _, index = name[1:].partition("_")
        block = f"{level}b{index}" if index else f"{level}a"
        for branch in ("branch1", "branch2a", "branch2b1", "branch2b2"):
            blocks[f"{name}.conv_{branch}"] = f"res{block}_{branch}"
            blocks[f"{name}.bn_{branch}"] = f"bn{block}_{branch}"
    parts = {"weight": "arg:%s_gamma", "bias": "arg:%s_beta"}
    parts |= {"running_mean": "aux:%s_moving_mean", "running_var": "aux:%s_moving_var"}
    for name, value in weights.items():
        layer, part = name.rsplit(".", 1)
        theirs = "arg:%s_weight" if value.ndim == 4 else parts[part]
        arrays[theirs % blocks[layer]] = value.numpy()
    arrays["arg:linear1000_weight"] = np.zeros((10, 4), np.float32)
    arrays["arg:linear1000_bias"] = np.zeros(10, np.float32)
    return arrays


@pytest.mark.parametrize("version", VERSIONS)
def test_read_mxnet_file_returns_written_arrays(version: Version, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {
        "arg:x_weight": random.normal(size=(2, 3, 1, 5)).astype(np.float32),
        "arg:x_gamma": random.normal(size=7).astype(np.float16),
        "aux:x_moving_var": random.normal(size=(3, 2)),
    }
    file = tmp_path / "x.params"
    file.write_bytes(written(arrays, version))
    assert is_mxnet_file(file)
    read = read_mxnet_file(file)
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == torch.float32
        assert np.array_equal(read[name].numpy(), array.astype(np.float32))


@pytest.mark.parametrize("version", VERSIONS)
def test_read_mxnet_file_rejects_truncated_file(version: Version, tmp_path: Path) -> None:
    content = written({"a": np.ones((2, 3), np.float32), "b": np.ones(2, np.float16)}, version)
    file = tmp_path / "cut.params"
    for length in range(len(content)):
        file.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"cut\.params: .*: the file ends early"):
            read_mxnet_file(file)


def test_read_mxnet_file_rejects_invalid_content(tmp_path: Path) -> None:
    one = np.ones((2, 3), np.float32)
    good = written({"a": one})
    start, end = good[:24], good[-17:]  # three numbers; then a number, a length and a one-letter name
    file = tmp_path / "odd.params"
    for content, words in (
        (b"PK" + good[2:], "magic number: "),
        (good + b"x", "end: 1 more bytes follow"),
        (start + in_version_0(one, 3) + end, "array 1 of 1: value type: must be 0, 1 or 2 .*, got 3"),
        (start + in_version_2(one, -1) + end, "array 1 of 1: value type: must be 0, 1 or 2 .*, got -1"),
        (
            start + struct.pack("<Ii", 0xF993FAC9, 1) + end,
            r"array 1 of 1: storage type: must be 0 \(dense\), got 1",
        ),
        (start + struct.pack("<I", 0xF993FACB) + end, "array 1 of 1: header: 0xf993facb"),
        (start + struct.pack("<I", 0) + end, r"array 1 of 1: shape: must not be empty, got \[\]"),
        (
            start + in_version_0(np.ones((2, 0)), 1) + end,
            r"array 1 of 1: shape: must not be empty, got \[2, 0\]",
        ),
        (
            start + struct.pack("<IIqq", 0xF993FAC8, 2, -2, -3) + end,
            r"array 1 of 1: shape: must not be empty, got \[-2, -3\]",
        ),
        (
            start + struct.pack("<II4i", 1, 2**31, 1, 0, 0, 0) + end,
            "array 1 of 1: values: the file ends early",
        ),
        (good[:16] + struct.pack("<Q", 2**60) + good[24:], "array 2 of 1152921504606846976: "),
        (good[:-17] + struct.pack("<Q", 0), "number of names: must be the number of arrays, 1"),
        (good[:-1] + b"\xff", "name 1 of 1: must be UTF-8"),
        (written({"a": one, "b": one})[:-1] + b"a", "names: must be unique"),
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=rf"odd\.params: {words}"):
            read_mxnet_file(file)


def fetch(tmp_path: Path, weights: Path | str, sha256: str = "", name: str = "resnet38d") -> int:
    values = {"name": name, "weights": str(weights), "sha256": sha256}
    cams = {f"download_backbone__cams__{key}": value for key, value in values.items()}
    return run_stage(
        "download_backbone",
        write_params(tmp_path / "params.yaml", **cams),
        cam_backbone=tmp_path / "cams.pt",
        segmenter_backbone=tmp_path / "segmenter.pt",
        backbone_origins=tmp_path / "origins.json",
    )


@pytest.mark.usefixtures("narrow")
def test_both_file_formats_give_same_features(tmp_path: Path) -> None:
    weights = drawn_weights()
    torch.save(weights, tmp_path / "port.pth")
    torch.save(resnet38d.ResNet38d().state_dict(), tmp_path / "counted.pth")  # with batch counts
    (tmp_path / "release.params").write_bytes(written(released(weights)))
    image = torch.randn(1, 3, 32, 32)
    features = {}
    for name in ("port.pth", "counted.pth", "release.params"):
        file = tmp_path / name
        assert fetch(tmp_path, file, hashlib.sha256(file.read_bytes()).hexdigest()) == 0
        kept = load(tmp_path / "cams.pt")
        assert kept["name"] == "resnet38d"
        with torch.no_grad():
            features[name] = loaded(kept["weights"])(image)
    for stage in STAGES:
        assert torch.equal(features["port.pth"][stage], features["release.params"][stage])
        assert not torch.equal(features["port.pth"][stage], features["counted.pth"][stage])


@pytest.mark.usefixtures("narrow")
def test_download_backbone_rejects_other_weights(tmp_path: Path, refused: Refusal) -> None:
    weights = drawn_weights()
    arrays = released(weights)
    less = {
        name: array for name, array in arrays.items() if name not in ("aux:bn7_moving_var", "arg:bn7_beta")
    }
    files = {
        "less.params": written(less),
        "more.params": written({**arrays, "arg:res4b6_branch2a_weight": np.ones(1, np.float32)}),
        "shape.params": written({**arrays, "arg:conv1a_weight": np.ones((1, 3, 3, 3), np.float32)}),
        "good.params": written(arrays),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    torch.save({k: v for k, v in weights.items() if k != "bn7.bias"}, tmp_path / "less.pth")
    torch.save({**weights, "fc8.weight": torch.ones(1)}, tmp_path / "more.pth")
    torch.save(timm.create_model("resnet10").state_dict(), tmp_path / "resnet10.pth")
    for file, words in (
        ("less.params", ["less.params: arg:bn7_beta: is missing, and 1 more"]),
        ("more.params", ["more.params: arg:res4b6_branch2a_weight: is not an array of resnet38d\n"]),
        ("shape.params", ["does not hold weights of resnet38d", "size mismatch for conv1a.weight"]),
        ("less.pth", ["does not hold weights of resnet38d", 'Missing key(s) in state_dict: "bn7.bias"']),
        ("more.pth", ["does not hold weights of resnet38d", 'Unexpected key(s) in state_dict: "fc8.weight"']),
        ("resnet10.pth", ["does not hold weights of resnet38d"]),
    ):
        message = refused(fetch, tmp_path, tmp_path / file)
        assert all(word in message for word in words), message
    message = refused(fetch, tmp_path, tmp_path / "good.params", name="resnet18")
    assert "does not hold weights of resnet18" in message
    message = refused(fetch, tmp_path, "pretrained")
    assert "download_backbone.cams.weights" in message
    assert "ilsvrc-cls_rna-a1_cls1000_ep-0001.params" in message
    assert not (tmp_path / "cams.pt").exists()
