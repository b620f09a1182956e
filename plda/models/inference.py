"""Inference with trained networks: folded batch norm, reduced precision, several scales."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from plda.data.transforms import LEAST_SIDE, full_precision, resize, unit
from plda.models.backbones import PROBE, STAGES, Backbone, Network
from plda.models.lean import ActiveBatchNorm2d, Conv2d, FrozenBatchNorm2d, norms_behind_convolutions


class Inference:
    """A network that is prepared for inference; this changes the given network, so do not use that elsewhere.

    Args:
        network: as loaded, on the CPU.
        device: where it runs.
        dtype: number type of the computations. Below float32, the backbone's weights are stored in this type,
            the heads run under autocast, and their output is still float32. Stage 1 computes in float32,
            because it would cause two thirds of the error (docs/measured/speed.md).
    """

    def __init__(self, network: Network, device: torch.device, dtype: torch.dtype) -> None:
        fold_batch_norm(network.eval())
        if dtype != torch.float32:
            _lower(network.requires_grad_(False).backbone, dtype)
        self._layout = network.layout_on(device)
        self._network = network.to(device, memory_format=self._layout)  # type: ignore[call-overload]
        self._device, self._dtype = device, dtype

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Any:
        """Run the network on (B, 3, H, W) RGB in [0, 1] on its device."""
        mixed = self._dtype != torch.float32
        with torch.autocast(self._device.type, self._dtype if mixed else None, enabled=mixed):
            return self._network(images.contiguous(memory_format=self._layout))


class _Float32(nn.Module):
    """A module that computes in float32, also under mixed precision."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x):
            return self.module(x.float())  # type: ignore[no-any-return]


def _lower(backbone: Backbone, dtype: torch.dtype) -> None:
    """Convert a backbone's weights to `dtype`, except those of the layers up to stage 1."""
    first = _before_stage1(backbone)
    for name, module in list(backbone.named_modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            if module in first:
                backbone.set_submodule(name, _Float32(module))
            else:
                module.to(dtype)


def _before_stage1(backbone: Backbone) -> set[nn.Module]:
    """Return the modules that run up to the first map; none if no module outputs this map."""
    ran: list[tuple[nn.Module, Any]] = []
    hooks = [m.register_forward_hook(lambda m, _, out: ran.append((m, out))) for m in backbone.modules()]
    first = backbone.probe()[STAGES[0]]
    for hook in hooks:
        hook.remove()
    ends = [i for i, (_, out) in enumerate(ran) if out is first]
    return {module for module, _ in ran[: ends[-1] + 1]} if ends else set()


@torch.no_grad()
def fold_batch_norm(network: nn.Module) -> None:
    """Fold each batch norm that follows a convolution into its weights, in place; equal up to rounding.

    Args:
        network: in evaluation mode, on the CPU; takes (B, 3, H, W).
    """
    for module in network.modules():  # undo the merges of `make_lean`
        if isinstance(module, Conv2d):
            module.norms = ()
        elif isinstance(module, FrozenBatchNorm2d):
            module.done = False
    pairs = norms_behind_convolutions(network, lambda: network(torch.zeros(1, 3, PROBE, PROBE)))
    names = {module: name for name, module in network.named_modules()}
    for convolution, norm in pairs:
        network.set_submodule(names[convolution], fuse_conv_bn_eval(convolution, norm))
        network.set_submodule(names[norm], norm.act if isinstance(norm, ActiveBatchNorm2d) else nn.Identity())


@torch.no_grad()
def multi_scale(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    size: Sequence[int],
    *,
    scales: Sequence[float],
    flip: bool,
) -> Tensor:
    """Average a network's maps over several image sizes, and over mirrored images if wanted.

    Args:
        network: (B, 3, H, W) RGB in [0, 1] to maps (B, C, h, w).
        images: (B, 3, H, W) uint8 RGB.
        size: (h, w) of the result.
        scales: factors of the images' size.
        flip: whether to average over the mirrored images too.

    Returns:
        (B, C, h, w) float32, the mean over scales and mirror images of the maps resized to `size`.
    """
    pixels, count = unit(images), len(images)
    height, width = images.shape[-2:]
    total: Tensor | None = None
    for scale in scales:
        x = resize(pixels, [max(LEAST_SIDE, round(side * scale)) for side in (height, width)])
        maps = resize(network(torch.cat([x, x.flip(-1)]) if flip else x).float(), size)
        if flip:
            maps = (maps[:count] + maps[count:].flip(-1)) / 2
        total = maps if total is None else total + maps
    assert total is not None
    return total / len(scales)
