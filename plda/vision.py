"""torchvision, imported without torch's compiler.

`torchvision.ops.roi_align` imports `torch._dynamo`, a third of the time in which a command starts, for one
function that only an operation which this project never calls needs. Here it is given that function in a form
that imports the compiler when it is called. The modules that inference needs take torchvision from here;
`torchvision.transforms.v2` imports the compiler, too, and is left to training.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


def _is_compile_supported(device_type: Any) -> Any:
    from torch._dynamo.utils import is_compile_supported

    return is_compile_supported(device_type)


@contextmanager
def _compiler_on_demand() -> Iterator[None]:
    name = "torch._dynamo.utils"
    if name in sys.modules:
        yield
        return
    stand_in = ModuleType(name)
    stand_in.__dict__["is_compile_supported"] = _is_compile_supported
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        del sys.modules[name]


with _compiler_on_demand():
    import torchvision

__all__ = ["torchvision"]
