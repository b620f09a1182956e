"""The device of all computations, and the precision of inference."""

import torch

from plda.errors import InputError
from plda.params import Compute, Precision


def find_device(compute: Compute) -> torch.device:
    """Return the kind of device to use; "auto" selects a GPU if there is one.

    Raises:
        InputError: this machine does not have the device, or has fewer than requested.
    """
    device = named_device(compute.device, "params: compute.device")
    count = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device.type, compute.devices)
    if compute.devices > count:
        raise InputError(
            f"params: compute.devices: {compute.devices} requested, but this machine has {count}"
        )
    return device


def named_device(name: str, field: str) -> torch.device:
    """Return the device `name`: "cuda", "mps", "cpu" or "auto"; messages name `field`.

    Raises:
        InputError: this machine does not have the device.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, there in present.items() if there))
    if not present[name]:
        raise InputError(f"{field}: this machine has no {name!r}")
    return torch.device(name)


def inference_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the number type for inference.

    "auto" is bfloat16 if the device computes faster with it (for example a CPU with AVX512-BF16 or AMX),
    float16 on older GPUs, and float32 elsewhere. docs/measured/speed.md gives its cost in mIoU.
    """
    named = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}
    if precision != "auto":
        return named[precision]
    match device.type:
        case "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
            return torch.bfloat16 if fast else torch.float16
        case "cpu":
            has = torch.cpu.get_capabilities()
            return torch.bfloat16 if has.get("avx512_bf16") or has.get("amx_bf16") else torch.float32
        case _:
            return torch.float32


def together_on(device: torch.device) -> int:
    """Return the maximum number of images of one size in a batch for inference.

    A CPU is fastest with one image (and its mirror image), because its maps stay in the cache.
    """
    return 1 if device.type == "cpu" else 8
