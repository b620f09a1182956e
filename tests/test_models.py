"""Backbones compared with torchvision; heads, losses and the file of a trained network."""

import math
from pathlib import Path

import pytest
import torch
import torchvision
from conftest import BASELINES, build
from timm.layers import SEModule
from torch import nn
from torch.nn import functional as F

from plda.data.images import VOID
from plda.models import lean
from plda.models.backbones import STAGES, Backbone
from plda.models.baselines import build_baseline
from plda.models.cam import CamNetwork, tag_loss
from plda.models.saved import Architecture, load_network, save_network
from plda.models.segmenters import SEGMENTER, DeepLabV2Head, Segmenter, mask_loss
from plda.models.weights import fitted

# timm and torchvision names of the same network; other timm networks: tests/test_backbones.py
SAME = {"resnet18": "resnet18", "resnet50": "resnet50", "mobilenetv2_100": "mobilenet_v2"}


def with_statistics(network: nn.Module) -> nn.Module:
    """Give all batch norm layers nontrivial weights and statistics; return the network."""
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
        norm.running_mean.normal_(std=0.1)  # type: ignore[union-attr,operator]
        norm.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr,operator]
    return network


def stages_of_torchvision(network: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    """Return the last map at each stride from 4 to 32; only a ResNet may be dilated."""
    maps = []
    if hasattr(network, "features"):
        for block in network.features:
            smaller = any(m.stride[0] > 1 for m in block.modules() if isinstance(m, nn.Conv2d))
            image = block(image)
            maps = [*maps, image] if smaller or not maps else [*maps[:-1], image]
        return maps[-4:]
    x = network.maxpool(network.relu(network.bn1(network.conv1(image))))
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = layer(x)
        maps.append(x)
    return maps


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("output_stride", [32, 16, 8])
def test_backbone_features_match_torchvision(name: str, output_stride: int) -> None:
    """Strides 8 and 16 use torchvision's dilation, which MobileNetV2 lacks; see the next test."""
    torch.manual_seed(0)
    dilated = {"replace_stride_with_dilation": [False, output_stride < 16, output_stride < 32]}
    options = dilated if name == "resnet50" else {}
    if output_stride < 32 and not options:
        pytest.skip("torchvision dilates no such network")
    network = with_statistics(torchvision.models.get_model(SAME[name], **options)).eval()
    weights, layout = fitted(name, network.state_dict())
    assert layout == ("torchvision" if name == "mobilenetv2_100" else "timm")
    backbone = Backbone(name, output_stride=output_stride, batch_norm="frozen").eval()
    backbone.load(weights)
    image = torch.rand(2, 3, 97, 130)
    with torch.no_grad():
        ours = backbone(image)
        theirs = stages_of_torchvision(network, backbone.normalise(image))
    assert tuple(ours) == STAGES
    for stage, expected in zip(STAGES, theirs, strict=True):
        assert ours[stage].shape[1] == backbone.channels[stage]
        assert (ours[stage] - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", ["mobilenetv2_100", "resnet10", "efficientnet_lite0", "regnety_002"])
def test_dilated_backbone_subsampled_equals_plain_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise, weights trained without dilation do not fit a dilated network."""
    # SE layers use the mean over all pixels, and a dilated network has more pixels
    monkeypatch.setattr(SEModule, "forward", lambda _, features: features)
    image = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    torch.manual_seed(0)
    plain = with_statistics(Backbone(name)).double().eval()
    with torch.no_grad():
        expected = plain(image)
    # at 8, the second pooling on resnet10's shortcuts covers other pixels than in the plain network
    for output_stride in (16,) if name == "resnet10" else (16, 8):
        dilated = Backbone(name, output_stride=output_stride).double()
        dilated.load_state_dict(plain.state_dict())
        with torch.no_grad():
            features = dilated.eval()(image)
        for stage, stride in zip(STAGES, (4, 8, 16, 32), strict=True):
            every = max(1, stride // output_stride)
            assert expected[stage].abs().max() > 0.01
            torch.testing.assert_close(features[stage][..., ::every, ::every], expected[stage])


def test_frozen_batch_norm_stays_constant_in_training() -> None:
    backbone = Backbone("resnet10", batch_norm="frozen").train()
    before = {k: v.clone() for k, v in backbone.state_dict().items() if "bn" in k}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=1.0)
    backbone(torch.randn(2, 3, 64, 64))["stage4"].sum().backward()
    optimizer.step()
    assert before
    for key, value in before.items():
        assert torch.equal(value, backbone.state_dict()[key]), key
    trained = Backbone("resnet10").train()
    mean = trained.state_dict()["network.bn1.running_mean"].clone()
    trained(torch.randn(2, 3, 64, 64))
    assert not torch.equal(mean, trained.state_dict()["network.bn1.running_mean"])


@pytest.mark.parametrize("batch_norm", ["frozen", "trained"])
@pytest.mark.parametrize("name", ["mobilenetv2_100", "resnet10", "resnet38d", "tf_efficientnet_lite0"])
def test_lean_layers_match_torch_layers(name: str, batch_norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, so that only another formula can cause a difference."""
    monkeypatch.setattr(F, "dropout2d", lambda x, *_: x)
    torch.manual_seed(0)
    backbone = Backbone(name, output_stride=16, batch_norm=batch_norm).double().train()
    with_statistics(backbone)
    plain = Backbone(name, output_stride=16, batch_norm=batch_norm).double().train()
    plain.load_state_dict(backbone.state_dict())
    torchs = {better: usual for usual, better in (lean.LEAN | lean.LEAN_FROZEN).items()}
    for module in plain.modules():
        module.__class__ = torchs.get(type(module), type(module))
    sides = (32, 48) if name == "resnet38d" else (64, 96)
    image = torch.randn(2, 3, *sides, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    kept = [saved_bytes(network, image) for network in (backbone, plain)]
    for (key, ours), theirs in zip(backbone.named_parameters(), plain.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        if ours.grad is not None:
            assert (ours.grad - theirs.grad).abs().max() < 1e-10 * theirs.grad.abs().max(), key
    assert kept[0] < kept[1] or (name, batch_norm) in (("resnet10", "trained"), ("resnet38d", "trained"))


@pytest.mark.parametrize("size", [(28, 30), (14, 14), (7, 25), (1, 1)])
def test_deeplabv2_head_matches_its_convolutions(size: tuple[int, int]) -> None:
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
    """Run a forward and a backward pass; return the bytes that the first keeps for the second."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = network(image)["stage4"].square().mean()
    loss.backward()
    return sum(kept.values())


def test_tag_loss_matches_formula() -> None:
    network = CamNetwork(Backbone("resnet10", output_stride=16), 3).eval()
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
def test_baseline_fulfils_contract(name: str) -> None:
    """Requirements of the stages and of PLDA; tests/test_adaptation.py runs PLDA on each baseline."""
    network = build_baseline(name, Backbone("resnet10", output_stride=16), 3).train()
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
def test_segmenter_scores_every_pixel(head: str) -> None:
    network = Segmenter(Backbone("mobilenetv2_100", output_stride=16), head, classes=5).eval()
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


def test_saved_network_gives_same_output(tmp_path: Path) -> None:
    classes = ("background", "cat", "dog")
    architecture = Architecture("segmenter", "mobilenetv2_100", 16, "frozen", "lraspp", classes)
    network = build(architecture).eval()
    for name in ("1.pt", "2.pt"):
        save_network(tmp_path / name, architecture, network.state_dict())
    assert (tmp_path / "1.pt").read_bytes() == (tmp_path / "2.pt").read_bytes()
    loaded = load_network(tmp_path / "1.pt", SEGMENTER, classes)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(image), loaded(image))
