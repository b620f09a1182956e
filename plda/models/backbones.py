"""timm classification networks as backbones: four named feature maps at a chosen output stride.

timm builds, dilates and names the networks (Wightman, "PyTorch Image Models"). This module uses them so:

    stages          The last four levels of the feature pyramid, at stride 4, 8, 16, 32 before dilation. If
                    all maps have one size, as in a plain vision transformer: the outputs of its blocks at
                    1/4, 1/2, 3/4 and the end of its depth, after its final norm.
    stage4          Ends with the last 1x1 convolution before the classifier, if the network has one
                    (MobileNetV2, EfficientNet).
    normalisation   A backbone takes RGB in [0, 1] and normalises it as its weights were trained. The
                    constants are part of its state, so they are saved with the weights.
    size            Images can have any size. If a network accepts only multiples of its patch size, images
                    are padded at the right and at the bottom with the mean colour.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm  # base class of batch norm, also across processes

from plda.errors import InputError
from plda.models import resnet10, resnet38d  # noqa: F401  # registers them in timm
from plda.models.lean import make_lean
from plda.vision import timm

PROBE = 64  # pixels, side of a test image
SIZES = ((32, 32), (75, 107))  # heights and widths that a backbone must accept: the smallest, and odd ones
STAGES = ("stage1", "stage2", "stage3", "stage4")


@dataclass(frozen=True)
class Reading:
    """How to build a network and how to read its feature maps.

    Attributes:
        options: keyword arguments of `timm.create_model`, as items.
        indices: indices of the four stages among the network's maps.
        norm: whether the network's final norm is applied to the maps.
        ends_later: whether stage 4 is the network's last output, computed from its last map.
        multiple: height and width of images must be multiples of this number, pixels.
        strides: output strides of the four stages.
    """

    options: tuple[tuple[str, Any], ...]
    indices: tuple[int, ...] = ()
    norm: bool = False
    ends_later: bool = False
    multiple: int = 1
    strides: tuple[int, ...] = ()

    @property
    def only_maps(self) -> bool:
        """Whether the network returns only a list of its maps."""
        return "features_only" in dict(self.options)

    def build(self, name: str) -> nn.Module:
        """Return the network with random weights and without its classifier."""
        classes = {} if self.only_maps else {"num_classes": 0}
        return create(name, **classes, **dict(self.options))

    def maps(self, network: Any, x: Tensor) -> list[Tensor]:
        """Return the four stages, (B, D, h, w) each, for normalised images (B, 3, H, W)."""
        height, width = (-side % self.multiple for side in x.shape[-2:])
        if height or width:
            x = F.pad(x, (0, width, 0, height))
        if self.only_maps:
            maps = network(x)
            return [maps[i] for i in self.indices]
        last, maps = network.forward_intermediates(x, indices=list(self.indices), norm=self.norm)
        return [*maps[:-1], last] if self.ends_later else list(maps)


class Backbone(nn.Module):
    """A network without its classifier; `forward` returns the feature maps of four stages by name.

    Args:
        name: network name, see `plda.backbone_names`.
        output_stride: image size divided by the size of the last feature map. Below 32, the last stages keep
            their resolution and use dilated kernels instead, as in the DeepLab papers.
        batch_norm: "trained", or "frozen": statistics, scale and shift do not change.

    Attributes:
        name: network name.
        channels: number of channels of each stage.
        strides: output stride of each stage.
        mean: (3, 1, 1), subtracted from RGB in [0, 1].
        deviation: (3, 1, 1), divides the difference.

    Raises:
        ValueError: the network has no such feature maps; the message gives the reason.
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
        self._kept: frozenset[str] = frozenset()  # names of parameters that are not trained
        self._learns = True
        self.eval()
        make_lean(self.network, self.probe, batch_norm == "frozen")
        self.channels = {stage: maps.shape[1] for stage, maps in self.probe().items()}
        self.strides = dict(zip(STAGES, self._reading.strides, strict=True))
        self.train()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the stages in order: (B, 3, H, W) RGB in [0, 1] to {stage: (B, channels[stage], h, w)}."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._learns):
            maps = self._reading.maps(self.network, self.normalise(image))
        return dict(zip(STAGES, maps, strict=True))

    def normalise(self, image: Tensor) -> Tensor:
        """Normalise (B, 3, H, W) RGB in [0, 1] to about zero mean and unit deviation."""
        return (image - self.mean) / self.deviation

    def train(self, mode: bool = True) -> "Backbone":
        """Set the mode as `nn.Module.train` does, but keep frozen layers in evaluation mode."""
        super().train(mode and self._learns)
        for name, norm in self._norms():
            if self._batch_norm == "frozen" or f"{name}.weight" in self._kept:
                norm.eval()
        return self

    def freeze(self, what: str) -> None:
        """Exclude layers from training.

        Args:
            what: "none"; "stem": the layers before the first block; "all".
        """
        self._learns = what != "all"
        self._kept = stem(self.network) if what == "stem" else frozenset()
        for name, weight in self.network.named_parameters():
            if name in self._kept or not self._learns:
                weight.requires_grad_(False)
        self.train(self.training)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Copy weights with timm's names into the network; the weights of a classifier are ignored.

        Raises:
            RuntimeError: weights are missing or have other shapes.
        """
        own = self.network.state_dict()
        self.network.load_state_dict({name: value for name, value in weights.items() if name in own})

    @property
    def has_batch_norm(self) -> bool:
        """Whether the network has batch norm, so that `batch_norm` has an effect."""
        return any(self._norms())

    def _norms(self) -> Iterator[tuple[str, nn.Module]]:
        return ((name, m) for name, m in self.network.named_modules() if isinstance(m, _BatchNorm))

    @torch.no_grad()
    def probe(self) -> dict[str, Tensor]:
        """Return the feature maps of a small black image."""
        features: dict[str, Tensor] = self(torch.zeros(1, 3, PROBE, PROBE))
        return features


class Network(nn.Module):
    """Base class of the networks that are built on a backbone."""

    backbone: Backbone

    def layout_on(self, device: torch.device) -> torch.memory_format:
        """Return the fastest memory format: channels last, except for resnet38d on a CPU."""
        apart = device.type == "cpu" and self.backbone.name == "resnet38d"
        return torch.contiguous_format if apart else torch.channels_last


def create(name: str, **options: Any) -> nn.Module:
    """Return a timm network with random weights and active residual branches.

    timm initialises the branches so that they add nothing: the last batch norm of each has scale 0. A few
    epochs of training do not undo that (docs/measured/backbones.md).
    """
    network: nn.Module = timm.create_model(name, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.is_meta and not module.weight.any():
            nn.init.ones_(module.weight)
    return network


@cache
def reading(name: str, output_stride: int | None = None) -> Reading:
    """Find out how to read a network's maps, without allocating its weights.

    Args:
        name: network name.
        output_stride: required stride of the last map; None: any.

    Raises:
        ValueError: the network has no weights of this name, gives no maps for images of any size, or has
            another output stride, which is fixed.
    """
    architecture, _, tag = name.partition(".")
    tags = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in tags:
        raise ValueError(f"{name}: timm has no weights {tag!r}, only {', '.join(tags) or 'none'}")
    reason, found = "", set()
    for options in _ways(output_stride):
        try:
            tried = _tried(name, options)
        except Exception as error:  # networks raise many kinds of errors for an option or a size
            reason = reason or str(error).partition("\n")[0]
            continue
        if output_stride in (None, tried.strides[-1]):
            return tried
        found.add(tried.strides[-1])
    if found:
        own = " or ".join(str(stride) for stride in sorted(found))
        raise ValueError(
            f"output_stride: must be {own} with {name}, whose stride is fixed, got {output_stride}"
        )
    raise ValueError(f"{name}: has no feature maps for images of any size ({reason}); choose another network")


def refuse_unfit(params: Mapping[str, Any]) -> None:
    """Check that the networks in parsed params give maps with the requested output stride.

    Raises:
        InputError: a network does not; the message names the field.
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
    """Yield timm options that may give the stride and accept images of any size, likely ones first."""
    any_size = ((), (("dynamic_img_size", True),), (("strict_img_size", False),))
    dilated = (("output_stride", output_stride),)
    if output_stride and output_stride < 32:
        yield dilated
        yield (*dilated, ("features_only", True))  # MobileNetV3 can be dilated only in this way
    yield from any_size


@torch.no_grad()
def _tried(name: str, options: tuple[tuple[str, Any], ...]) -> Reading:
    """Find out which maps a network gives; raise any error of a network that gives none."""
    with torch.device("meta"):  # computes only shapes
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
        raise ValueError(f"feature maps: must be at least 4, got {len(maps)}")
    return replace(how, strides=tuple(side // m.shape[-1] for m in maps))


def stem(network: Any) -> frozenset[str]:
    """Return the names of the parameters before the first block, by timm's parameter groups."""
    groups = timm.models.group_parameters(network, network.group_matcher(), reverse=True)
    return frozenset(name for name, group in groups.items() if group == 0)
