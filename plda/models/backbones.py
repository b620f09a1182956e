"""Classification networks of timm as backbones: four named feature maps, at a chosen output stride.

timm builds, dilates and names the networks (Wightman, "PyTorch Image Models"). This module reads them:

    stages          the last four levels of a pyramid, at stride 4, 8, 16, 32 before dilation. Of a network
                    whose maps are all of one size, such as a plain vision transformer, the outputs of its
                    blocks at 1/4, 1/2, 3/4 and the end of its depth, after its final norm.
    stage4          ends with the last 1x1 convolution before the classifier, where a network has one
                    (MobileNetV2, EfficientNet).
    normalisation   a backbone takes RGB in [0, 1] and normalises it as its weights were trained. The
                    constants are part of its state, so they travel with the weights.
    size            of images is free. A network that takes only multiples of its patch gets them padded at
                    the right and at the bottom with the mean colour.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm  # also what it is over several processes

from plda.errors import InputError
from plda.models import resnet10, resnet38d  # noqa: F401  # now timm knows them
from plda.models.lean import make_lean
from plda.vision import timm

PROBE = 64  # pixels, side of an image that a network is tried on
SIZES = ((32, 32), (75, 107))  # heights and widths that a backbone must take: the least one, and an odd one
STAGES = ("stage1", "stage2", "stage3", "stage4")


@dataclass(frozen=True)
class Reading:
    """How a network is built, and how its feature maps are read.

    Attributes:
        options: of `timm.create_model`, as items.
        indices: of the maps that the four stages are.
        norm: whether maps go through the network's final norm.
        ends_later: whether stage 4 is what the network makes of its last map.
        multiple: the sides of images must be multiples of it, pixels.
        strides: of the four stages.
    """

    options: tuple[tuple[str, Any], ...]
    indices: tuple[int, ...] = ()
    norm: bool = False
    ends_later: bool = False
    multiple: int = 1
    strides: tuple[int, ...] = ()

    @property
    def only_maps(self) -> bool:
        """Whether the network returns a list of its maps, and nothing else."""
        return "features_only" in dict(self.options)

    def build(self, name: str) -> nn.Module:
        """Return the network with fresh weights and without its classifier."""
        classes = {} if self.only_maps else {"num_classes": 0}
        return create(name, **classes, **dict(self.options))

    def maps(self, network: Any, x: Tensor) -> list[Tensor]:
        """Return the four stages, (B, D, h, w) each, of a network's normalised images (B, 3, H, W)."""
        height, width = (-side % self.multiple for side in x.shape[-2:])
        if height or width:
            x = F.pad(x, (0, width, 0, height))
        if self.only_maps:
            maps = network(x)
            return [maps[i] for i in self.indices]
        last, maps = network.forward_intermediates(x, indices=list(self.indices), norm=self.norm)
        return [*maps[:-1], last] if self.ends_later else list(maps)


class Backbone(nn.Module):
    """A network without its classifier; `forward` gives the features of four stages by name.

    Args:
        name: see `plda.backbone_names`.
        output_stride: how much smaller the last feature map is. Below 32 the last stages keep their
            resolution and dilate their kernels instead, as in the DeepLab papers.
        batch_norm: "trained"; or "frozen": statistics, scale and shift stay as they are.

    Attributes:
        name: as given.
        channels: the number of channels of each stage's features.
        strides: of each stage's features.
        mean: (3, 1, 1), subtracted from RGB in [0, 1].
        deviation: (3, 1, 1), what the difference is divided by.

    Raises:
        ValueError: the network gives no such maps; it says why.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str, *, output_stride: int = 32, batch_norm: str = "trained") -> None:
        super().__init__()
        self.name = name
        self._reading = reading(name, output_stride)
        self.network = self._reading.build(name)
        config = timm.get_pretrained_cfg(name)
        self.register_buffer("mean", torch.tensor(config.mean)[:, None, None])
        self.register_buffer("deviation", torch.tensor(config.std)[:, None, None])
        self._batch_norm = batch_norm
        self._kept: frozenset[str] = frozenset()  # names of parameters that do not learn
        self._learns = True
        self.eval()
        make_lean(self.network, self.probe, batch_norm == "frozen")
        self.channels = {stage: maps.shape[1] for stage, maps in self.probe().items()}
        self.strides = dict(zip(STAGES, self._reading.strides, strict=True))
        self.train()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) RGB in [0, 1] to {stage: (B, channels[stage], h, w)}, in order."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._learns):
            maps = self._reading.maps(self.network, self.normalise(image))
        return dict(zip(STAGES, maps, strict=True))

    def normalise(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] to the same, of about zero mean and unit deviation."""
        return (image - self.mean) / self.deviation

    def train(self, mode: bool = True) -> "Backbone":
        """As for any module, but what is frozen stays in evaluation mode."""
        super().train(mode and self._learns)
        for name, norm in self._norms():
            if self._batch_norm == "frozen" or f"{name}.weight" in self._kept:
                norm.eval()
        return self

    def freeze(self, what: str) -> None:
        """Keep layers from learning.

        Args:
            what: "none"; "stem": those before the first block; "all".
        """
        self._learns = what != "all"
        self._kept = stem(self.network) if what == "stem" else frozenset()
        for name, weight in self.network.named_parameters():
            if name in self._kept or not self._learns:
                weight.requires_grad_(False)
        self.train(self.training)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Copy a network's weights, by timm's names; those of a classifier may be among them.

        Raises:
            RuntimeError: some are missing, or of other shapes.
        """
        own = self.network.state_dict()
        self.network.load_state_dict({name: value for name, value in weights.items() if name in own})

    @property
    def has_batch_norm(self) -> bool:
        """Whether `batch_norm` means anything to it."""
        return any(self._norms())

    def _norms(self) -> Iterator[tuple[str, nn.Module]]:
        return ((name, m) for name, m in self.network.named_modules() if isinstance(m, _BatchNorm))

    @torch.no_grad()
    def probe(self) -> dict[str, Tensor]:
        """Return the features of a small black image."""
        features: dict[str, Tensor] = self(torch.zeros(1, 3, PROBE, PROBE))
        return features


class Network(nn.Module):
    """A network on a backbone, whose features it is given."""

    backbone: Backbone

    def layout_on(self, device: torch.device) -> torch.memory_format:
        """Return how its maps best lie in memory: channels last, but of resnet38d on a CPU."""
        apart = device.type == "cpu" and self.backbone.name == "resnet38d"
        return torch.contiguous_format if apart else torch.channels_last


def create(name: str, **options: Any) -> nn.Module:
    """Return a network of timm's with fresh weights, its residual branches open.

    timm draws them so that they add nothing at first: the last batch norm of each has scale 0. A training of
    a few epochs never makes up for that (docs/measured/backbones.md).
    """
    network: nn.Module = timm.create_model(name, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.is_meta and not module.weight.any():
            nn.init.ones_(module.weight)
    return network


@cache
def reading(name: str, output_stride: int | None = None) -> Reading:
    """Find out how a network gives its maps, without allocating its weights.

    Args:
        name: of the network.
        output_stride: that its last map must have; None: any.

    Raises:
        ValueError: it has no such weights as its name says, gives no maps of images of any size, or has
            another output stride and cannot change it.
    """
    architecture, _, tag = name.partition(".")
    tags = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in tags:
        raise ValueError(f"{name}: timm knows no weights {tag!r}, only {', '.join(tags) or 'none'}")
    reason, found = "", set()
    for options in _ways(output_stride):
        try:
            tried = _tried(name, options)
        except Exception as error:  # what a network says to an option or a size, it says in many ways
            reason = reason or str(error).partition("\n")[0]
            continue
        if output_stride in (None, tried.strides[-1]):
            return tried
        found.add(tried.strides[-1])
    if found:
        own = " or ".join(str(stride) for stride in sorted(found))
        raise ValueError(
            f"output_stride: must be {own} with {name}, which cannot change it, got {output_stride}"
        )
    raise ValueError(f"{name}: gives no feature maps of images of any size ({reason}); take another network")


def refuse_unfit(params: Mapping[str, Any]) -> None:
    """Refuse params, as parsed, whose networks give no maps, or none of the output stride that is asked for.

    Raises:
        InputError: names the field.
    """
    pairs = [("cams", "train_cam"), ("segmenter", "train_segmenter")]
    if params["relabel_masks"]["enabled"]:
        pairs.append(("segmenter", "relabel_masks"))
    for role, stage in pairs:
        try:
            reading(params["download_backbone"][role]["name"], params[stage]["output_stride"])
        except ValueError as error:
            of_stride = str(error).startswith("output_stride")
            field = f"{stage}." if of_stride else f"download_backbone.{role}.name: "
            raise InputError(f"params: {field}{error}") from error


def _ways(output_stride: int | None) -> Iterator[tuple[tuple[str, Any], ...]]:
    """Options with which a network might have the stride and take images of any size, likely ones first."""
    any_size = ((), (("dynamic_img_size", True),), (("strict_img_size", False),))
    dilated = (("output_stride", output_stride),)
    if output_stride and output_stride < 32:
        yield dilated
        yield (*dilated, ("features_only", True))  # MobileNetV3 dilates only so
    yield from any_size


@torch.no_grad()
def _tried(name: str, options: tuple[tuple[str, Any], ...]) -> Reading:
    """See which maps a network gives; raises whatever it does where it gives none."""
    with torch.device("meta"):  # shapes alone
        how = Reading(options)
        network: Any = how.build(name).eval()
        info = network.feature_info
        reductions = info.reduction() if how.only_maps else [level["reduction"] for level in info]
        if min(reductions) == max(reductions):
            count = len(reductions)
            how = replace(how, indices=tuple(count * k // 4 - 1 for k in (1, 2, 3, 4)), norm=True)
        else:
            how = replace(how, indices=tuple(range(len(reductions)))[-4:])
        if not how.only_maps:
            x = torch.zeros(1, 3, 16 * reductions[-1], 16 * reductions[-1])
            last, maps = network.forward_intermediates(x, indices=list(how.indices))
            how = replace(how, ends_later=last.ndim == 4 and last.shape[2:] == maps[-1].shape[2:])
        images = [torch.zeros(1, 3, *size) for size in SIZES]
        try:
            maps = [how.maps(network, image) for image in images][-1]
        except Exception:
            how = replace(how, multiple=reductions[-1])
            maps = [how.maps(network, image) for image in images][-1]
        side = 32 * how.multiple if how.multiple > 1 else 128
        maps = how.maps(network, torch.zeros(1, 3, side, side))
    if len(maps) < len(STAGES):
        raise ValueError(f"it has {len(maps)} maps, 4 are needed")
    return replace(how, strides=tuple(side // m.shape[-1] for m in maps))


def stem(network: Any) -> frozenset[str]:
    """Return the names of the parameters that come before the first block, as timm groups them."""
    groups = timm.models.group_parameters(network, network.group_matcher(), reverse=True)
    return frozenset(name for name, group in groups.items() if group == 0)
