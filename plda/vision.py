"""torchvision and timm, imported without torch's compiler.

Both import `torch._dynamo`, which takes half of the start-up time of a command and which this project never
calls. `torchvision.ops.roi_align` imports it for one function, timm to exclude methods of one network from
compilation. This module replaces these by functions that import the compiler when called, or do nothing.
Import torchvision and timm from this module. `torchvision.transforms.v2` imports the compiler, too; only
training uses it.
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
    """Replace `torch.compiler.disable`: return the function unchanged."""
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
