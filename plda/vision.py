"""torchvision and timm, imported without torch's compiler.

Both import `torch._dynamo`, half of the time in which a command starts, for what this project never calls:
`torchvision.ops.roi_align` for one function, timm to keep methods of one network from being compiled. Here
they get forms of these that import the compiler when they are called, or do nothing. Whoever needs
torchvision or timm takes it from here; `torchvision.transforms.v2` imports the compiler, too, and is left to
training.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch


def _is_compile_supported(device_type: Any) -> Any:
    from torch._dynamo.utils import is_compile_supported

    return is_compile_supported(device_type)


def _same(function: Any = None, **_: Any) -> Any:
    """As `torch.compiler.disable`, but that nothing is marked."""
    return _same if function is None else function


@contextmanager
def _compiler_on_demand() -> Iterator[None]:
    name, disable = "torch._dynamo.utils", torch.compiler.disable
    if name in sys.modules:
        yield
        return
    stand_in = ModuleType(name)
    stand_in.__dict__["is_compile_supported"] = _is_compile_supported
    sys.modules[name] = stand_in
    torch.compiler.disable = _same  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        torch.compiler.disable = disable


with _compiler_on_demand():
    import timm
    import timm.layers
    import timm.models
    import torchvision

__all__ = ["timm", "torchvision"]
