"""The wide ResNet-38, model A1 of Wu, Shen, van den Hengel, "Wider or Deeper" (2016), as a backbone.

It is the backbone of AffinityNet, SEAM and PLDA. Channels are multiples of 64; x is a block's input:

    conv1a        3x3, 3 to 64, stride 1
    b2, b3, b4    3, 3, 6 blocks of two 3x3 convolutions, 128, 256, 512 channels
    b5            3 blocks of two 3x3 convolutions, to 512, then to 1024 channels
    b6            1 block of 1x1, 3x3, 1x1, to 512, 1024, 2048 channels; dropout 0.3
    b7            the same to 1024, 2048, 4096 channels; dropout 0.5
    bn7           batch norm and ReLU

No convolution has a bias. Before each one in a block come batch norm and ReLU, and in b6 and b7 dropout of
whole channels, but not before the first. A block's output is

    x + branch2(x)              where it has the shape of x
    branch1(a) + branch2'(a)    in the first block of each level, with a = relu(batch norm(x)), branch1 a 1x1
                                convolution, and branch2' what is left of branch2 behind a

The first blocks of b2 to b6 halve the resolution, in the first convolution of either branch, so the network
has stride 32, as it was trained on ImageNet. At output stride 8, b5 and b6 keep the resolution; all 3x3
convolutions of b5 but the first have dilation 2, those of b6 and b7 have 4, as AffinityNet and SEAM have it.

A stage ends with the a of the level behind it. Its features are then the published ones: stage1 conv3 (256
channels, stride 4), stage2 conv4 (512, after b4_5), stage3 conv5 (1024, after b5_2), stage4 conv6 (4096), and
SEAM takes its affinities from stage2 and stage3, as published.

Weights are named as in the PyTorch networks of AffinityNet and SEAM: `conv1a.weight`,
`b4.conv_branch1.weight`, `b4_2.bn_branch2a.running_mean`, `bn7.bias`. Batch norm has the epsilon 1e-5 there
and in the code that the released weights come from (github.com/itijyou/ademxapp, MXNet), which fixes no scale
(gamma) either and normalises images as we do.
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
CLASSIFIER = {"arg:linear1000_weight", "arg:linear1000_bias"}  # in it, and of no use here


class Level(NamedTuple):
    """Blocks in a row.

    Attributes:
        name: of the first; those behind it add _1, _2, ...
        blocks: how many.
        widths: channels after each convolution of a block, in multiples of WIDTH.
        stride: of the first block.
        dropout: the share of channels.
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
CUTS = ("b4", "b5", "b6")  # where a stage begins


class ResNet38d(nn.ModuleDict):
    """The layers under their published names, freshly initialised as for ImageNet; no classifier.

    Args:
        output_stride: 8, 16 or 32. Where the input of a convolution has stride s in the network as it was
            trained, it halves the resolution no further than to this, and its kernel takes each
            (s / output_stride)-th pixel: the same ones as there.
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
        """Return the last features and the chosen stages', of (B, 3, H, W), as timm's networks do."""
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
        """Return how parameters are grouped, the stem first, as timm's networks do."""
        return {"stem": "^conv1a", "blocks": [("^b([2-7])" if coarse else r"^b([2-7])_?(\d+)?", None)]}

    def _branch2(self, block: nn.ModuleDict, active: Tensor, dropout: float) -> Tensor:
        """Return a block's branch 2 behind its first batch norm and ReLU."""
        x: Tensor = block["conv_branch2a"](active)
        for name in ("2b1", "2b2"):
            if f"conv_branch{name}" in block:
                x = F.dropout2d(_active(block[f"bn_branch{name}"], x), dropout, self.training)
                x = block[f"conv_branch{name}"](x)
        return x


default_cfgs = timm.models.generate_default_cfgs({"resnet38d": {"num_classes": 0}})  # normalised as usual


@timm.models.register_model  # type: ignore[untyped-decorator]
def resnet38d(pretrained: bool = False, output_stride: int = 32, **_: Any) -> ResNet38d:
    """Build it for timm's registry, under this function's name; it has no weights to download."""
    assert not pretrained
    return ResNet38d(output_stride)


def from_release(arrays: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The arrays of the authors' file under our names, without its classifier of 1000 classes.

    Raises:
        InputError: a name is missing or unknown; `path` is named in what is said of it.
    """
    with torch.device("meta"):
        ours = [name for name in ResNet38d().state_dict() if not name.endswith("num_batches_tracked")]
    released = {name: _release_name(name) for name in ours}
    missing = set(released.values()) - arrays.keys()
    unknown = arrays.keys() - set(released.values()) - CLASSIFIER
    for names, problem in ((missing, "is missing"), (unknown, "is no array of resnet38d")):
        if names:
            more = f", like {len(names) - 1} more" if len(names) > 1 else ""
            raise InputError(f"{path}: {min(names)}: {problem}{more}")
    return {name: arrays[release] for name, release in released.items()}


def _release_name(name: str) -> str:
    """`b4_2.bn_branch2a.running_mean` to `aux:bn4b2_branch2a_moving_mean`, and so on."""
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
    """The layers of one block, in order; `seen` is the stride of what it is given, before dilation."""

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
