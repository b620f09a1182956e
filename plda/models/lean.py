"""Layers that compute and store less for the backward pass than torch's; equal up to rounding.

- Frozen batch norm scales and shifts each channel. After a convolution, it is merged into the convolution's
  weights: one pass over the map instead of two.
- Depthwise convolutions compute in float32, also under mixed precision: their backward pass in oneDNN takes
  three times as long in bfloat16. On a CPU only.
- torch stores the input of batch norm even if its values are not needed, and the input of ReLU6 besides its
  output, which is enough. These layers store neither. On a CPU only: not tested on a GPU.

A layer becomes lean by a change of its class; its state and its name do not change. timm's layers are
supported as well as torch's: convolutions with TensorFlow's padding, and batch norm with an activation.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from plda.data.transforms import full_precision
from plda.vision import timm

ActiveBatchNorm2d: Any = timm.layers.BatchNormAct2d


def make_lean(network: nn.Module, run: Callable[[], object], frozen: bool) -> None:
    """Make layers lean, in place.

    Args:
        network: in evaluation mode.
        run: runs the network on any image.
        frozen: whether batch norm is frozen; if not, it is not changed.
    """
    for module in network.modules():
        lean = LEAN.get(type(module)) or (LEAN_FROZEN.get(type(module)) if frozen else None)
        module.__class__ = lean or type(module)
        if isinstance(module, FrozenBatchNorm2d):
            module.requires_grad_(False)
    for convolution, norm in norms_behind_convolutions(network, run) if frozen else ():
        if (
            isinstance(convolution, Conv2d)
            and isinstance(norm, FrozenBatchNorm2d)
            and convolution.bias is None
        ):
            convolution.norms, norm.done = (norm,), True


def norms_behind_convolutions(
    network: nn.Module, run: Callable[[], object]
) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return each convolution with its batch norm, if only this norm uses the convolution's output.

    Args:
        network: in evaluation mode.
        run: runs the network on any image.
    """
    made: dict[int, tuple[Any, Tensor]] = {}  # keeps the outputs, so that their ids are not reused
    found: list[tuple[Any, Any, int]] = []
    uses = _Uses()

    def note(convolution: nn.Module, _: Any, output: Tensor) -> None:
        assert isinstance(convolution, nn.Conv2d)
        made[id(output)] = convolution, output
        uses.count[id(output)] = 0  # an earlier tensor may have had this id

    def match(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        if id(inputs[0]) in made:
            found.append((made[id(inputs[0])][0], norm, id(inputs[0])))

    hooks = [m.register_forward_hook(note) for m in network.modules() if type(m) in CONVOLUTIONS]
    hooks += [m.register_forward_pre_hook(match) for m in network.modules() if type(m) in NORMS]
    with torch.no_grad(), uses:
        run()
    for hook in hooks:
        hook.remove()
    calls = Counter(layer for *pair, _ in found for layer in pair)
    return [
        (convolution, norm)
        for convolution, norm, output in found
        if uses.count[output] == calls[convolution] == calls[norm] == 1
    ]


class _Uses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts, in its context, how many operations each tensor is an argument of, by its id."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count: Counter[int] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.count.update(id(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor))
        return func(*args, **(kwargs or {}))


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch norm in evaluation mode whose scale and shift are not trained.

    Attributes:
        done: whether the convolution before it has already scaled and shifted.
    """

    done = False

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return the factor and the offset of each channel."""
        assert self.running_var is not None and self.running_mean is not None
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W); the size stays the same."""
        if self.done:
            return x
        if not is_lean(x):
            return nn.BatchNorm2d.forward(self, x)
        return _FrozenBatchNorm.apply(  # type: ignore[no-any-return,no-untyped-call]
            x, self.weight, self.bias, self.running_mean, self.running_var, self.eps
        )


class FrozenActiveBatchNorm2d(FrozenBatchNorm2d, ActiveBatchNorm2d):  # type: ignore[misc]
    """`FrozenBatchNorm2d` followed by timm's activation."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W) and apply the activation; the size stays the same."""
        return self.act(self.drop(FrozenBatchNorm2d.forward(self, x)))  # type: ignore[no-any-return,operator]


class Conv2d(nn.Conv2d):
    """A convolution, merged with the frozen batch norm after it, if any.

    Attributes:
        norms: that batch norm, or none; in a tuple, so that it is not a submodule.
    """

    norms: tuple[FrozenBatchNorm2d, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, H, W) to (B, D, h, w)."""
        weight, bias = self.weight, self.bias
        for norm in self.norms:
            scale, bias = norm.scale_and_shift()
            weight = weight * scale[:, None, None, None]
        convolve: Callable[..., Tensor] = self._conv_forward
        if self.groups == 1 or not is_lean(x):
            return convolve(x, weight, bias)
        with full_precision(x):
            return convolve(x.to(weight.dtype), weight, bias)


class SameConv2d(Conv2d, timm.layers.Conv2dSame):  # type: ignore[misc]
    """`Conv2d` with TensorFlow's padding, but without timm's branches, which slow down ONNX export."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        pads = []
        for dimension in (1, 0):  # last dimension first, as in F.pad
            reach = self.dilation[dimension] * (self.kernel_size[dimension] - 1) + 1
            stride = self.stride[dimension]
            pad = reach - 1 - (x.shape[2 + dimension] - 1) % stride
            if reach < stride:
                pad = max(pad, 0)
            pads += [pad // 2, pad - pad // 2]
        made: Tensor = super()._conv_forward(F.pad(x, pads), weight, bias)
        return made


class ReLU6(nn.ReLU6):
    """min(max(x, 0), 6), in place."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply ReLU6 to a tensor of any size."""
        if not is_lean(x):
            return F.relu6(x, inplace=True)
        return _ReLU6.apply(x)  # type: ignore[no-any-return,no-untyped-call]


def is_lean(x: Tensor) -> bool:
    """Return whether a layer with input `x` is trained on a CPU."""
    return torch.is_grad_enabled() and x.device.type == "cpu"


class _FrozenBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(weight, mean, var)
        ctx.eps = eps
        return F.batch_norm(x, mean, var, weight, bias, eps=eps)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, mean, var = ctx.saved_tensors
        # the second argument is the layer's input; its gradient does not depend on these values
        of_x, _, _ = torch.ops.aten.native_batch_norm_backward(
            gradient, gradient, weight, mean, var, None, None, False, ctx.eps, [True, False, False]
        )
        return of_x, None, None, None, None, None


class _ReLU6(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        F.relu6(x, inplace=True)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradient, y, 0.0, 6.0)  # type: ignore[no-any-return]


LEAN: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: Conv2d,
    timm.layers.Conv2dSame: SameConv2d,
    nn.ReLU6: ReLU6,
}
LEAN_FROZEN: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: FrozenBatchNorm2d,
    ActiveBatchNorm2d: FrozenActiveBatchNorm2d,
}
CONVOLUTIONS = {nn.Conv2d, Conv2d, timm.layers.Conv2dSame, SameConv2d}
NORMS = {*LEAN_FROZEN, *LEAN_FROZEN.values()}
