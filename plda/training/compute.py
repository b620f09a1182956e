"""Where the work runs: device, processes, precision. What is computed stays the same, but for rounding."""

import ctypes
import platform

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment

from plda.errors import InputError
from plda.params import Compute

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def make_fabric(compute: Compute) -> Fabric:
    """The device(s) that `compute` asks for, ready to launch.

    Raises:
        InputError: a device that this machine does not have.
    """
    device = find_device(compute)
    precision = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed", "auto": "32-true"}
    if compute.precision == "auto" and device.type == "cuda":
        precision["auto"] = "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    return Fabric(
        accelerator=device.type,
        devices=compute.devices,
        precision=precision[compute.precision],  # type: ignore[arg-type]
        # the adaptation's heads have no gradient before their warm-up ends
        strategy="ddp_find_unused_parameters_true" if compute.devices > 1 else "auto",
        # it starts its processes itself; in a Slurm job it would think that srun had, and train with one
        plugins=[LightningEnvironment()],
    )


def find_device(compute: Compute) -> torch.device:
    """The device to use; "auto" takes a GPU where there is one.

    Raises:
        InputError: a device that this machine does not have.
    """
    keep_memory()
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if compute.device == "auto":
        return torch.device(next(name for name, there in present.items() if there))
    if not present[compute.device]:
        raise InputError(f"params: compute.device: this machine has no {compute.device!r}")
    return torch.device(compute.device)


def keep_memory() -> None:
    """Let glibc keep freed memory instead of handing it back: up to a sixth off a training step on a CPU.

    A training step frees and asks for the same large blocks again and again; by default each comes from
    mmap and must be zeroed page by page.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**30)
