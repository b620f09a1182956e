"""Which device the work runs on, and in which precision where nothing is learnt."""

import torch

from plda.errors import InputError
from plda.params import Compute, Precision


def find_device(compute: Compute) -> torch.device:
    """The kind of device to use; "auto" takes a GPU where there is one.

    Raises:
        InputError: a device that this machine does not have, or more of them than it has.
    """
    device = named_device(compute.device, "params: compute.device")
    count = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device.type, compute.devices)
    if compute.devices > count:
        raise InputError(
            f"params: compute.devices: {compute.devices} are asked for, this machine has {count}"
        )
    return device


def named_device(name: str, field: str) -> torch.device:
    """The device `name`: "cuda", "mps", "cpu" or "auto", as `field` asks.

    Raises:
        InputError: this machine does not have it.
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
    """Return the type of the numbers that a network computes with where nothing is learnt.

    "auto" is bfloat16 where the device computes faster with it, on a CPU with AVX512-BF16 or AMX for example,
    float16 on older GPUs, and float32 elsewhere. See docs/measured/speed.md for what it costs in mIoU.
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
    """Return how many images of one size are given to a network at once, at most, where nothing is learnt.

    A CPU is fastest with one image (and its mirror image), whose maps stay in its cache.
    """
    return 1 if device.type == "cpu" else 8
