"""Classification networks as backbones with named feature maps and a chosen output stride.

They are torchvision's, and two more. Weights are kept under the names that a network is published with, so
any file made for torchvision can be read; the names of resnet38d: plda/models/resnet38d.py.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from plda.models.lean import make_lean
from plda.models.resnet38d import ResNet38d
from plda.vision import torchvision

resnet = torchvision.models.resnet

PROBE = 64  # pixels, side of an image that a network is tried on
STAGES = ("stage1", "stage2", "stage3", "stage4")  # at stride 4, 8, 16, 32 before dilation
OWN: dict[str, Callable[[], nn.Module]] = {  # networks that torchvision has no name for
    "resnet10": lambda: resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1]),  # the smallest of its family
    "resnet38d": ResNet38d,
}


class Backbone(nn.Module):
    """Four stages of a network; `forward` gives each one's features by name.

    Attributes:
        name: of the network that it is of.
        channels: the number of channels of each named feature map.
        frozen: whether batch norm keeps its statistics and its scale and shift.
    """

    def __init__(self, name: str, stages: Mapping[str, nn.Module], frozen: bool) -> None:
        super().__init__()
        self.name = name
        self.stages = nn.ModuleDict(stages)
        self.frozen = frozen
        self.eval()
        make_lean(self.stages, self._probe, frozen)
        self.channels = {name: f.shape[1] for name, f in self._probe().items()}
        self.train()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) normalised RGB to {stage: (B, channels[stage], h, w)}, in order."""
        features = {}
        for name, stage in self.stages.items():
            image = stage(image)
            features[name] = image
        return features

    def train(self, mode: bool = True) -> "Backbone":
        """As for any module, but frozen batch norm stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            for norm in self._norms():
                norm.eval()
        return self

    def _norms(self) -> list[nn.Module]:
        return [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]

    @torch.no_grad()
    def _probe(self) -> dict[str, Tensor]:
        features: dict[str, Tensor] = self(torch.zeros(1, 3, PROBE, PROBE))
        return features


class Network(nn.Module):
    """A network on a backbone, whose features it is given."""

    backbone: Backbone

    def layout_on(self, device: torch.device) -> torch.memory_format:
        """Return how its maps best lie in memory: channels last, but of resnet38d on a CPU."""
        apart = device.type == "cpu" and self.backbone.name == "resnet38d"
        return torch.contiguous_format if apart else torch.channels_last


def classifier(name: str) -> nn.Module:
    """The network `name`, freshly initialised; its weights have the names that files of them have."""
    network: nn.Module = OWN[name]() if name in OWN else torchvision.models.get_model(name, weights=None)
    return network


def build_backbone(name: str, *, output_stride: int = 32, batch_norm: str = "trained") -> Backbone:
    """A backbone with fresh weights.

    Args:
        name: see `plda.params.Backbone`.
        output_stride: 8, 16 or 32: how much smaller the last feature map is. Below 32 the last stages keep
            their resolution and dilate their kernels instead, as the DeepLab papers do.
        batch_norm: "trained" or "frozen".
    """
    stages = _split(classifier(name))
    if output_stride < 32:
        _keep_resolution(stages, output_stride)
    return Backbone(name, stages, frozen=batch_norm == "frozen")


def load_backbone(backbone: Backbone, name: str, weights: Mapping[str, Tensor]) -> None:
    """Copy weights, named as in `classifier`, into a backbone of the same name.

    Raises:
        RuntimeError: the weights are of another network.
    """
    network = classifier(name)
    network.load_state_dict(weights)
    for stage, modules in _split(network).items():
        backbone.stages[stage].load_state_dict(modules.state_dict())


def _split(network: nn.Module) -> "OrderedDict[str, nn.Module]":
    """The four stages of a network, cut where its resolution halves; no classifier."""
    match network:
        case ResNet38d():
            parts = network.stages()
        case resnet.ResNet():
            stem = [network.conv1, network.bn1, network.relu, network.maxpool]
            parts = [nn.Sequential(*stem, network.layer1), network.layer2, network.layer3, network.layer4]
        case _:
            blocks = list(network.get_submodule("features").children())
            halving = [i for i, block in enumerate(blocks) if _stride(block) > 1]
            cuts = [0, *halving[-3:], len(blocks)]
            parts = [nn.Sequential(*blocks[a:b]) for a, b in pairwise(cuts)]
    return OrderedDict(zip(STAGES, parts, strict=True))


def _stride(block: nn.Module) -> int:
    return max((m.stride[0] for m in block.modules() if isinstance(m, nn.Conv2d)), default=1)


def _keep_resolution(stages: Mapping[str, nn.Module], output_stride: int) -> None:
    """Undo, in place, each halving beyond `output_stride`, and dilate the kernels behind it.

    What a convolution sees has stride s in the network as it is, which a look at an image tells, whatever
    path leads there. A kernel then takes each (s / output_stride)-th pixel: the same ones as before.
    """
    for convolution, seen in _strides_seen(stages).items():
        given = seen * convolution.stride[0]
        if given <= output_stride:
            continue
        convolution.stride = (max(1, output_stride // seen),) * 2
        kernel = convolution.kernel_size[0]
        if kernel > 1:
            spacing = max(1, seen // output_stride)
            convolution.dilation = (spacing, spacing)
            # an even kernel (ConvNeXt's 2x2) has no symmetric padding
            pad = spacing * (kernel - 1)
            convolution.padding = "same" if pad % 2 else (pad // 2, pad // 2)


@torch.no_grad()
def _strides_seen(stages: Mapping[str, nn.Module]) -> dict[nn.Conv2d, int]:
    """How much smaller than the image are the maps that each convolution is given."""
    network = nn.Sequential(*stages.values()).eval()
    seen: dict[nn.Conv2d, int] = {}

    def note(convolution: nn.Module, given: tuple[Tensor]) -> None:
        seen[cast(nn.Conv2d, convolution)] = PROBE // given[0].shape[-1]

    hooks = [m.register_forward_pre_hook(note) for m in network.modules() if isinstance(m, nn.Conv2d)]
    network(torch.zeros(1, 3, PROBE, PROBE))
    for hook in hooks:
        hook.remove()
    return seen
