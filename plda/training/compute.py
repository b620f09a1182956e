"""Device, processes and precision of a training run; they change its results only by rounding."""

import platform
import re
from pathlib import Path

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

from plda.compute.device import find_device
from plda.errors import InputError
from plda.params import Compute
from plda.vision import timm


class _Member(LightningEnvironment):
    """One of several processes that already run; environment variables are ignored."""

    creates_processes_externally = True

    def __init__(self, rank: int) -> None:
        super().__init__()
        self._rank = rank

    def local_rank(self) -> int:
        """Return the rank of this process."""
        return self._rank


def make_fabric(compute: Compute, rank: int) -> Fabric:
    """Return a launched Fabric with the device and precision of `compute`.

    Args:
        compute: device settings.
        rank: rank of this process; the processes are already connected, see `plda.training.distributed`.

    Raises:
        InputError: this machine does not have the device.
    """
    device = find_device(compute)
    threads = max(1, torch.get_num_threads() // compute.devices)
    fabric = Fabric(
        accelerator=device.type,
        devices=compute.devices,
        precision=_precision(compute, device),  # type: ignore[arg-type]
        # the adaptation's heads have no gradient during their warm-up
        strategy=DDPStrategy(find_unused_parameters=True) if compute.devices > 1 else "auto",
        plugins=_Member(rank),
    )
    fabric.launch()
    torch.set_num_threads(threads)
    return fabric


def share_batch_norm(learner: nn.Module, compute: Compute) -> None:
    """Make trained batch norm use the whole batch, not only a process's part of it; in place.

    Raises:
        InputError: the device is not a GPU; torch has no such batch norm for other devices.
    """
    trained = [
        (name, m) for name, m in learner.named_modules() if isinstance(m, nn.BatchNorm2d) and m.training
    ]
    if compute.devices == 1 or not trained:
        return
    if find_device(compute).type != "cuda":
        raise InputError(
            f"params: compute.devices: {compute.devices} processes can train batch norm on GPUs only; set "
            "batch_norm: frozen (and train_segmenter.head: deeplabv2, which has no batch norm), "
            "or devices: 1"
        )
    for name, norm in trained:
        learner.set_submodule(name, timm.layers.convert_sync_batchnorm(norm))


def describe(compute: Compute) -> dict[str, str]:
    """Describe the environment of a training run: device, precision, versions.

    It has no time, speed or host name: a rerun on the same machine does not change the output.
    """
    device = find_device(compute)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        name = f"{_processor()}, {threads} thread{'' if threads == 1 else 's'}"
    return {
        "device": name if compute.devices == 1 else f"{compute.devices} times {name}",
        "precision": _precision(compute, device),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _precision(compute: Compute, device: torch.device) -> str:
    precision = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed", "auto": "32-true"}
    if compute.precision == "auto" and device.type == "cuda":
        precision["auto"] = "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    return precision[compute.precision]


def _processor() -> str:
    """Return the processor's name on Linux, else its type."""
    info = Path("/proc/cpuinfo")
    found = re.search(
        r"^model name\s*: (.+)$", info.read_text(encoding="utf-8") if info.exists() else "", re.MULTILINE
    )
    return " ".join(found[1].split()) if found else platform.processor() or platform.machine()
