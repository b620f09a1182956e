"""Trained networks where nothing is learnt: batch norm folded, a fast precision, several scales."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from plda.data.transforms import LEAST_SIDE, normalise, resize
from plda.models.backbones import PROBE, Network
from plda.models.lean import FrozenBatchNorm2d


class Inference:
    """A network that is ready to be called; it becomes another one, so keep no other use of it.

    Args:
        network: as loaded, on the CPU.
        device: where it runs.
        dtype: of the numbers that it computes with. Below float32, its backbone's weights are kept in this
            type, and the rest runs as autocast decides; what comes out of a head is float32 all the same.
    """

    def __init__(self, network: Network, device: torch.device, dtype: torch.dtype) -> None:
        fold_batch_norm(network.eval())
        network.requires_grad_(False).backbone.to(dtype)
        self._network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device, self._dtype = device, dtype

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Any:
        """Return what the network says of (B, 3, H, W) normalised RGB on its device."""
        mixed = self._dtype != torch.float32
        with torch.autocast(self._device.type, self._dtype if mixed else None, enabled=mixed):
            return self._network(images.contiguous(memory_format=torch.channels_last))


@torch.no_grad()
def fold_batch_norm(network: nn.Module) -> None:
    """Put each batch norm that follows a convolution into its weights, in place; equal up to rounding.

    Args:
        network: in evaluation mode, on the CPU; takes (B, 3, H, W).
    """
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # an output is kept, so that no other one gets its id
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def note(convolution: nn.Module, _: Any, output: Tensor) -> None:
        assert isinstance(convolution, nn.Conv2d)
        made[id(output)] = convolution, output

    def match(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        if id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], norm))

    hooks = [m.register_forward_hook(note) for m in network.modules() if type(m) is nn.Conv2d]
    norms = [m for m in network.modules() if type(m) in (nn.BatchNorm2d, FrozenBatchNorm2d)]
    hooks += [m.register_forward_pre_hook(match) for m in norms]
    network(torch.zeros(1, 3, PROBE, PROBE))
    for hook in hooks:
        hook.remove()
    names = {module: name for name, module in network.named_modules()}
    for convolution, norm in pairs:
        network.set_submodule(names[convolution], fuse_conv_bn_eval(convolution, norm))
        network.set_submodule(names[norm], nn.Identity())


@torch.no_grad()
def multi_scale(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    size: Sequence[int],
    *,
    scales: Sequence[float],
    flip: bool,
) -> Tensor:
    """Average what a network says of images at several sizes, mirrored too.

    Args:
        network: (B, 3, H, W) normalised RGB to maps (B, C, h, w).
        images: (B, 3, H, W) uint8 RGB.
        size: (h, w) of what comes out.
        scales: factors of the images' size.
        flip: whether the mirrored images are averaged in.

    Returns:
        (B, C, h, w) float32, the mean over scales and mirror images of the maps resized to `size`.
    """
    normalised, count = normalise(images), len(images)
    height, width = images.shape[-2:]
    total: Tensor | None = None
    for scale in scales:
        x = resize(normalised, [max(LEAST_SIDE, round(side * scale)) for side in (height, width)])
        maps = resize(network(torch.cat([x, x.flip(-1)]) if flip else x).float(), size)
        if flip:
            maps = (maps[:count] + maps[count:].flip(-1)) / 2
        total = maps if total is None else total + maps
    assert total is not None
    return total / len(scales)
