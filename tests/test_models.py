"""Backbones against torchvision, heads, losses, and the file that a trained network is kept in."""

import math
from pathlib import Path

import pytest
import torch
import torchvision
from conftest import BASELINES, build
from torch import nn
from torchvision.ops import SqueezeExcitation

from plda.data.images import VOID
from plda.models import lean
from plda.models.backbones import STAGES, build_backbone, classifier, load_backbone
from plda.models.baselines import build_baseline
from plda.models.cam import CamNetwork, tag_loss
from plda.models.saved import Architecture, load_network, save_network
from plda.models.segmenters import SEGMENTER, DeepLabV2Head, Segmenter, mask_loss
from plda.params import Backbone

# torchvision's kind; the other one: tests/test_resnet38d.py
NAMES = [name for name in Backbone.__args__ if name != "resnet38d"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_every_backbone_at_every_output_stride(name: str) -> None:
    network = classifier(name).eval()
    image = torch.randn(1, 3, 96, 64)
    for output_stride in (32, 16, 8):
        backbone = build_backbone(name, output_stride=output_stride)
        load_backbone(backbone, name, network.state_dict())
        with torch.no_grad():
            features = backbone.eval()(image)
        assert tuple(features) == STAGES
        for stage, stride in zip(STAGES, (4, 8, 16, 32), strict=True):
            stride = min(stride, output_stride)
            assert features[stage].shape == (1, backbone.channels[stage], 96 // stride, 64 // stride)
        if output_stride == 32:  # nothing dilated: exactly torchvision's features
            with torch.no_grad():
                assert torch.equal(features["stage4"], reference(network, image))


def reference(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    if hasattr(network, "features"):
        return network.features(image)
    return nn.Sequential(*list(network.children())[:-2])(image)


@pytest.mark.parametrize("name", NAMES)
def test_a_dilated_backbone_sees_the_same_at_every_second_pixel(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else weights learnt without dilation mean something else with it."""
    # it weighs channels by their mean over all pixels, of which a dilated network has more
    monkeypatch.setattr(SqueezeExcitation, "forward", lambda _, features: features)
    image = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    plain = build_backbone(name).double().train()
    for norm in (m for m in plain.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = None  # it takes over what it sees: without that, deep features fade to nothing
    with torch.no_grad():
        plain(torch.randn(4, 3, 64, 64, dtype=torch.float64))
        expected = plain.eval()(image)
    # at 8, ConvNeXt's second even kernel is padded evenly, which moves what it sees by one pixel
    for output_stride in (16,) if name.startswith("convnext") else (16, 8):
        dilated = build_backbone(name, output_stride=output_stride).double()
        dilated.load_state_dict(plain.state_dict())
        with torch.no_grad():
            features = dilated.eval()(image)
        for stage, stride in zip(STAGES, (4, 8, 16, 32), strict=True):
            every = max(1, stride // output_stride)
            assert expected[stage].abs().max() > 0.01
            torch.testing.assert_close(features[stage][..., ::every, ::every], expected[stage])


def test_dilation_is_that_of_torchvisions_segmentation_networks() -> None:
    image = torch.randn(1, 3, 64, 96)
    network = torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True]).eval()
    backbone = build_backbone("resnet50", output_stride=8)
    load_backbone(backbone, "resnet50", network.state_dict())
    with torch.no_grad():
        ours, theirs = backbone.eval()(image)["stage4"], reference(network, image)
    assert theirs.abs().max() > 0.01
    torch.testing.assert_close(ours, theirs)


def test_frozen_batch_norm_changes_nothing_in_training() -> None:
    backbone = build_backbone("resnet10", batch_norm="frozen").train()
    before = {k: v.clone() for k, v in backbone.state_dict().items() if "bn" in k}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=1.0)
    backbone(torch.randn(2, 3, 64, 64))["stage4"].sum().backward()
    optimizer.step()
    assert before
    for key, value in before.items():
        assert torch.equal(value, backbone.state_dict()[key]), key
    trained = build_backbone("resnet10").train()
    mean = trained.state_dict()["stages.stage1.1.running_mean"].clone()
    trained(torch.randn(2, 3, 64, 64))
    assert not torch.equal(mean, trained.state_dict()["stages.stage1.1.running_mean"])


@pytest.mark.parametrize("batch_norm", ["frozen", "trained"])
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet10", "resnet38d"])
def test_lean_layers_compute_what_those_of_torch_do(name: str, batch_norm: str) -> None:
    """In float64, so that only another formula would differ."""
    torch.manual_seed(0)
    backbone = build_backbone(name, output_stride=16, batch_norm=batch_norm).double().train()
    for norm in backbone.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(std=0.1)  # type: ignore[union-attr,operator]
            norm.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr,operator]
        elif isinstance(norm, nn.Dropout2d):
            norm.p = 0.0
    plain = build_backbone(name, output_stride=16, batch_norm=batch_norm).double().train()
    plain.load_state_dict(backbone.state_dict())
    torchs = {lean.FrozenBatchNorm2d: nn.BatchNorm2d, lean.ReLU6: nn.ReLU6, lean.Conv2d: nn.Conv2d}
    for module in plain.modules():
        module.__class__ = torchs.get(type(module), type(module))
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    sides = (32, 48) if name == "resnet38d" else (64, 96)
    image = torch.randn(2, 3, *sides, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    kept = [saved_bytes(network, image) for network in (backbone, plain)]
    for (key, ours), theirs in zip(backbone.named_parameters(), plain.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        if ours.grad is not None:
            assert (ours.grad - theirs.grad).abs().max() < 1e-10 * theirs.grad.abs().max(), key
    assert kept[0] < kept[1] or (name, batch_norm) in (("resnet10", "trained"), ("resnet38d", "trained"))


@pytest.mark.parametrize("size", [(28, 30), (14, 14), (7, 25), (1, 1)])
def test_deeplabv2_by_taps_is_its_convolutions(size: tuple[int, int]) -> None:
    head = DeepLabV2Head(8, 3).double()
    for branch in head.branches:
        nn.init.normal_(branch.bias)  # type: ignore[arg-type]
    features = torch.randn(2, 8, *size, dtype=torch.float64)
    found = head(features)
    weights = [p.clone() for p in torch.autograd.grad(found.square().sum(), list(head.parameters()))]
    expected = sum(branch(features) for branch in head.branches)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(
        weights,
        list(torch.autograd.grad(expected.square().sum(), list(head.parameters()))),
        atol=1e-10,
        rtol=0,
    )


def saved_bytes(network: nn.Module, image: torch.Tensor) -> int:
    """What a forward pass keeps for the backward pass, which follows."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = network(image)["stage4"].square().mean()
    loss.backward()
    return sum(kept.values())


def test_tag_loss_is_the_formula() -> None:
    network = CamNetwork(build_backbone("resnet10", output_stride=16), 3).eval()
    output = network(torch.randn(2, 3, 64, 64))
    assert output.scores.shape == (2, 3, 4, 4)
    assert "bias" not in dict(network.head.named_parameters())
    tags = torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    expected = 0.0
    for b in range(2):
        for c in range(3):
            logit = float(output.scores[b, c].detach().mean())
            p = 1 / (1 + math.exp(-logit))
            expected -= math.log(p if tags[b, c] else 1 - p) / 6
    assert float(tag_loss(output, tags)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_keeps_the_contract(name: str) -> None:
    """What the stages and PLDA take for granted; PLDA itself on each: tests/test_adaptation.py."""
    network = build_baseline(name, build_backbone("resnet10", output_stride=16), 3).train()
    image, tags = torch.randn(2, 3, 64, 80), torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    output, parts = network.losses(image, tags)
    assert tuple(output.features) == STAGES
    assert output.scores.shape == output.maps.shape == (2, 3, 4, 5)
    assert output.logits.shape == (2, 3)
    assert (output.maps >= 0).all()
    assert "tags" in parts
    torch.stack(list(parts.values())).sum().backward()
    assert all(weight.grad is not None for weight in network.backbone.parameters())
    assert network.head.weight.grad.any()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse, parts = network.losses(image, tags)
    assert coarse.scores.dtype == coarse.maps.dtype == coarse.logits.dtype == torch.float32
    assert all(torch.isfinite(part) for part in parts.values())


@pytest.mark.parametrize("head", ["deeplabv2", "deeplabv3", "lraspp"])
def test_segmenters_score_every_pixel(head: str) -> None:
    network = Segmenter(build_backbone("mobilenet_v2", output_stride=16), head, classes=5).eval()
    with torch.no_grad():
        assert network(torch.randn(2, 3, 65, 90)).shape == (2, 5, 65, 90)


def test_mask_loss_skips_undecided_pixels() -> None:
    scores = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    mask = torch.randint(0, 3, (2, 4, 5))
    mask[0, :2] = VOID
    log_p = scores.log_softmax(dim=1)
    expected = [
        -log_p[b, mask[b, y, x], y, x]
        for b in range(2)
        for y in range(4)
        for x in range(5)
        if mask[b, y, x] != VOID
    ]
    torch.testing.assert_close(mask_loss(scores, mask), sum(expected) / len(expected))
    nothing = mask_loss(scores, torch.full_like(mask, VOID))
    nothing.backward()
    assert float(nothing) == 0.0
    assert not scores.grad.any()


def test_a_saved_network_says_the_same(tmp_path: Path) -> None:
    classes = ("background", "cat", "dog")
    architecture = Architecture("segmenter", "mobilenet_v2", 16, "frozen", "lraspp", classes)
    network = build(architecture).eval()
    for name in ("1.pt", "2.pt"):
        save_network(tmp_path / name, architecture, network.state_dict())
    assert (tmp_path / "1.pt").read_bytes() == (tmp_path / "2.pt").read_bytes()
    loaded = load_network(tmp_path / "1.pt", SEGMENTER, classes)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(image), loaded(image))
