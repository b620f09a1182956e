"""The wide ResNet-38, model A1 of Wu, Shen, van den Hengel, "Wider or Deeper" (2016), as a backbone.

It is the backbone of AffinityNet, SEAM and PLDA. Channels are multiples of 64; x is a block's input:

    conv1a        3x3, 3 to 64, stride 1
    b2, b3, b4    3, 3, 6 blocks of two 3x3 convolutions, 128, 256, 512 channels
    b5            3 blocks of two 3x3 convolutions, to 512, then to 1024 channels
    b6            1 block of 1x1, 3x3, 1x1, to 512, 1024, 2048 channels; dropout 0.3
    b7            the same to 1024, 2048, 4096 channels; dropout 0.5
    bn7           batch norm and ReLU

No convolution has a bias. In a block, batch norm and ReLU precede each convolution; in b6 and b7, dropout of
whole channels also precedes each convolution except the first. A block's output is

    x + branch2(x)              if it has the shape of x
    branch1(a) + branch2'(a)    in the first block of each level, with a = relu(batch norm(x)), branch1 a 1x1
                                convolution, and branch2' the part of branch2 after a

The first blocks of b2 to b6 halve the resolution in the first convolution of both branches, so the network
has stride 32, as trained on ImageNet. At output stride 8, b5 and b6 keep the resolution; all 3x3 convolutions
of b5 except the first have dilation 2, those of b6 and b7 have 4, as in AffinityNet and SEAM.

A stage ends with the activation a of the next level. So its features are the published ones: stage1 conv3
(256 channels, stride 4), stage2 conv4 (512, after b4_5), stage3 conv5 (1024, after b5_2), stage4 conv6
(4096), and SEAM computes its affinities from stage2 and stage3, as published.

Weights are named as in the PyTorch networks of AffinityNet and SEAM: `conv1a.weight`,
`b4.conv_branch1.weight`, `b4_2.bn_branch2a.running_mean`, `bn7.bias`. Batch norm has the epsilon 1e-5, as in
these networks and in the code of the released weights (github.com/itijyou/ademxapp, MXNet), which does not
fix the scale (gamma) either and normalises images in the same way.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plda.errors import InputError
from plda.vision import timm

WIDTH = 64  # channels after conv1a; all others are multiples of it
RELEASE = "ilsvrc-cls_rna-a1_cls1000_ep-0001.params"  # the authors' file
CLASSIFIER = {"arg:linear1000_weight", "arg:linear1000_bias"}  # its classifier, not used here


class Level(NamedTuple):
    """Consecutive blocks.

    Attributes:
        name: name of the first block; the next blocks add _1, _2, ...
        blocks: number of blocks.
        widths: channels after each convolution of a block, in multiples of WIDTH.
        stride: stride of the first block.
        dropout: fraction of the channels that are dropped.
    """

    name: str
    blocks: int
    widths: tuple[int, ...]
    stride: int
    dropout: float = 0.0

    def names(self) -> list[str]:
        return [self.name, *(f"{self.name}_{i}" for i in range(1, self.blocks))]


LEVELS = (
    Level("b2", 3, (2, 2), stride=2),
    Level("b3", 3, (4, 4), stride=2),
    Level("b4", 6, (8, 8), stride=2),
    Level("b5", 3, (8, 16), stride=2),
    Level("b6", 1, (8, 16, 32), stride=2, dropout=0.3),
    Level("b7", 1, (16, 32, 64), stride=1, dropout=0.5),
)
CUTS = ("b4", "b5", "b6")  # levels whose first activation is the end of a stage


class ResNet38d(nn.ModuleDict):
    """The layers under their published names, initialised as for ImageNet; no classifier.

    Args:
        output_stride: 8, 16 or 32. Convolutions do not reduce the resolution below this stride. If the input
            of a convolution has stride s in the original network, its kernel has dilation s / output_stride,
            so it reads the same pixels as in the original.
    """

    def __init__(self, output_stride: int = 32) -> None:
        layers: dict[str, nn.Module] = {"conv1a": _convolution(3, WIDTH, kernel=3)}
        channels, seen = WIDTH, 1
        for level in LEVELS:
            for name in level.names():
                first = name == level.name
                layers[name] = _block(channels, level, first, seen, output_stride)
                channels, seen = WIDTH * level.widths[-1], seen * (level.stride if first else 1)
        layers["bn7"] = nn.BatchNorm2d(channels)
        super().__init__(layers)
        ends = ((4, 4, "b4"), (8, 8, "b5"), (16, 16, "b6"), (64, 32, "bn7"))
        self.feature_info = [
            {"num_chs": WIDTH * width, "reduction": min(stride, output_stride), "module": name}
            for width, stride, name in ends
        ]

    def forward_intermediates(
        self, x: Tensor, indices: Sequence[int] = (0, 1, 2, 3), **_: Any
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the last features and those of the chosen stages for (B, 3, H, W), as timm's networks do."""
        stages = []
        x = self["conv1a"](x)
        for level in LEVELS:
            for name in level.names():
                block = cast(nn.ModuleDict, self[name])
                active = _active(block["bn_branch2a"], x)
                if name in CUTS:
                    stages.append(active)
                shortcut = block["conv_branch1"](active) if name == level.name else x
                x = shortcut + self._branch2(block, active, level.dropout)
        stages.append(_active(self["bn7"], x))
        return stages[-1], [stages[i] for i in indices]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return the parameter groups, the stem first, in timm's format."""
        return {"stem": "^conv1a", "blocks": [("^b([2-7])" if coarse else r"^b([2-7])_?(\d+)?", None)]}

    def _branch2(self, block: nn.ModuleDict, active: Tensor, dropout: float) -> Tensor:
        """Apply a block's branch 2 without its first batch norm and ReLU."""
        x: Tensor = block["conv_branch2a"](active)
        for name in ("2b1", "2b2"):
            if f"conv_branch{name}" in block:
                x = F.dropout2d(_active(block[f"bn_branch{name}"], x), dropout, self.training)
                x = block[f"conv_branch{name}"](x)
        return x


default_cfgs = timm.models.generate_default_cfgs({"resnet38d": {"num_classes": 0}})  # default normalisation


@timm.models.register_model  # type: ignore[untyped-decorator]
def resnet38d(pretrained: bool = False, output_stride: int = 32, **_: Any) -> ResNet38d:
    """Build the network for timm's registry, under this function's name; it has no weights to download."""
    assert not pretrained
    return ResNet38d(output_stride)


def from_release(arrays: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the arrays of the authors' file under this project's names, without its 1000-class classifier.

    Raises:
        InputError: an array is missing or unknown; the message names `path`.
    """
    with torch.device("meta"):
        ours = [name for name in ResNet38d().state_dict() if not name.endswith("num_batches_tracked")]
    released = {name: _release_name(name) for name in ours}
    missing = set(released.values()) - arrays.keys()
    unknown = arrays.keys() - set(released.values()) - CLASSIFIER
    for names, problem in ((missing, "is missing"), (unknown, "is not an array of resnet38d")):
        if names:
            more = f", and {len(names) - 1} more" if len(names) > 1 else ""
            raise InputError(f"{path}: {min(names)}: {problem}{more}")
    return {name: arrays[release] for name, release in released.items()}


def _release_name(name: str) -> str:
    """Convert `b4_2.bn_branch2a.running_mean` to `aux:bn4b2_branch2a_moving_mean`, and so on."""
    layer, _, value = name.rpartition(".")
    block, _, part = layer.partition(".")
    if part:
        kind, _, branch = part.partition("_")
        level, _, index = block.removeprefix("b").partition("_")
        layer = f"{kind.replace('conv', 'res')}{level}{f'b{index}' if index else 'a'}_{branch}"
    if layer.startswith("bn"):
        value = {
            "weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_var"
        }[value]  # fmt: skip
    return f"{'aux' if value.startswith('moving') else 'arg'}:{layer}_{value}"


def _convolution(channels: int, out: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    convolution = nn.Conv2d(
        channels, out, kernel, stride, padding=kernel // 2 * dilation, dilation=dilation, bias=False
    )
    nn.init.kaiming_normal_(convolution.weight)
    return convolution


def _block(channels: int, level: Level, first: bool, seen: int, output_stride: int) -> nn.ModuleDict:
    """Return the layers of one block, in order; `seen` is the stride of its input, before dilation."""

    def convolution(channels: int, out: int, kernel: int, seen: int, stride: int) -> nn.Conv2d:
        stride = max(1, min(stride, output_stride // seen))
        return _convolution(channels, out, kernel, stride, max(1, seen // output_stride) if kernel > 1 else 1)

    layers: dict[str, nn.Module] = {}
    into, given, stride = channels, seen, level.stride if first else 1
    kernels = (3, 3) if len(level.widths) == 2 else (1, 3, 1)
    for name, kernel, width in zip(("2a", "2b1", "2b2"), kernels, level.widths, strict=False):
        layers[f"bn_branch{name}"] = nn.BatchNorm2d(into)
        layers[f"conv_branch{name}"] = convolution(into, WIDTH * width, kernel, given, stride)
        into, given, stride = WIDTH * width, given * stride, 1
    if first:
        layers["conv_branch1"] = convolution(channels, into, 1, seen, level.stride)
    return nn.ModuleDict(layers)


def _active(norm: nn.Module, x: Tensor) -> Tensor:
    return F.relu(norm(x), inplace=True)
