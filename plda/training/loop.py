"""The training loop of all trainers: schedule, precision, progress, history, checkpoints, exact resume.

All randomness is a function of (seed, step): the order of the items, their augmentation, dropout. So a
resumed training run computes the same as an uninterrupted one, bit for bit on a CPU.
"""

import math
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from plda.collectives import all_sum, any_process, world_size
from plda.compute.device import find_device
from plda.errors import InputError, Unfinished
from plda.files import write_text
from plda.params import Compute, Schedule
from plda.randomness import derive_seed
from plda.training.checkpoints import Checkpoint
from plda.training.compute import make_fabric, share_batch_norm
from plda.training.distributed import process_group
from plda.training.progress import Progress
from plda.training.sampler import BatchSampler
from plda.training.stopping import leave_it_to_the_trainer, listening

Losses = dict[str, Tensor]
Weights = dict[str, Tensor]
Inspect = Callable[[nn.Module], dict[str, float]]

STEPS_BETWEEN_CHECKPOINTS = 200  # a killed job loses at most this many steps, if epochs are longer


def train(
    learner: nn.Module,
    data: Dataset[dict[str, Tensor]],
    *,
    settings: Schedule,
    seed: int,
    compute: Compute,
    checkpoint: Checkpoint,
    write: Callable[[Weights, pd.DataFrame], None],
    inspect: Inspect | None = None,
) -> None:
    """Train a network on `data` from its last checkpoint, and write the results.

    Args:
        learner: maps a batch and the training progress in [0, 1) to named scalars, of which `loss` is
            minimised. Its `network`, which is saved, has a `backbone`; all other parameters learn
            `head_lr_factor` times faster.
        data: gives a dict of tensors, including `image`, for an item (epoch, position).
        settings: a trainer's section of the params.
        seed: seed of order, augmentation and dropout.
        compute: device settings.
        checkpoint: stores the state; deleted after `write` returns.
        write: receives the trained weights of the network on the CPU, and the history: a row per epoch with
            epoch, step, lr, the mean of each loss, and the metrics of `inspect`.
        inspect: measures the network, in evaluation mode, after each epoch.

    Raises:
        InputError: the devices do not exist, or cannot share the batches or the batch norm; there are too few
            images; or the training diverges.
        Unfinished: SIGTERM or SIGUSR1 arrived; the state is saved.
        KeyboardInterrupt: Ctrl-C was pressed; the state is saved.
    """
    images = min(settings.batch_size, len(data))  # type: ignore[arg-type]
    if images == 1 and (reason := settings.needs_two_images()):
        raise InputError(f"one training image is not enough {reason}; add images, or change these values")
    if images % compute.devices:
        raise InputError(
            f"params: compute.devices: {compute.devices} processes cannot share a batch of {images} equally"
        )
    learner.train()
    share_batch_norm(learner, compute)
    backend = "cpu:gloo,cuda:nccl" if find_device(compute).type == "cuda" else "gloo"
    work = partial(_run, learner, data, settings, seed, compute, checkpoint)
    with checkpoint.locked():
        with process_group(compute.devices, backend, work):
            weights, history = work(0, inspect)
        write(weights, pd.DataFrame(history))
        checkpoint.delete()


def make_optimizer(learner: nn.Module, settings: Schedule) -> torch.optim.Optimizer:
    """Return SGD or AdamW for backbone and head; a group's `factor` multiplies its learning rate."""
    backbone = list(learner.network.backbone.parameters())  # type: ignore[operator,union-attr]
    known = {id(p) for p in backbone}
    groups = [
        {"params": [p for p in backbone if p.requires_grad], "factor": 1.0},
        {
            "params": [p for p in learner.parameters() if id(p) not in known],
            "factor": settings.head_lr_factor,
        },
    ]
    common = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=(settings.momentum, 0.999), **common)  # type: ignore[arg-type]
    return torch.optim.SGD(groups, momentum=settings.momentum, **common)  # type: ignore[arg-type]


def set_lr(optimizer: torch.optim.Optimizer, settings: Schedule, progress: float) -> float:
    """Set each group's learning rate at `progress` in [0, 1): lr (1 - progress)^power times its factor."""
    lr: float = settings.lr * (1 - progress) ** settings.poly_power
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]
    return lr


def write_history(path: Path, history: pd.DataFrame) -> None:
    """Write the history as CSV, atomically."""
    write_text(path, history.to_csv(index=False, float_format="%.6g"))


@dataclass
class _State:
    """The complete state of a training run after some step."""

    fabric: Fabric
    learner: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    sums: Losses = field(default_factory=dict)  # sums of the losses of this epoch, in this process

    def restore(self, saved: dict[str, Any]) -> None:
        self.step, self.history = saved["step"], saved["history"]
        self.sums = self.fabric.to_device(saved["sums"])
        self.learner.load_state_dict(saved["learner"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.fabric.strategy.precision.load_state_dict(saved["precision"])
        self.fabric.print(f"resumed after step {self.step}", file=sys.stderr)

    def saved(self) -> dict[str, Any]:
        """Return the state that `restore` takes; every process must call this."""
        return {
            "step": self.step,
            "history": self.history,
            "sums": self.mean_sums(),
            "learner": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
        }

    def mean_sums(self) -> Losses:
        """Return `sums`, averaged over the processes."""
        return {name: all_sum(value) / world_size() for name, value in self.sums.items()}

    def end_epoch(self, steps_per_epoch: int, lr: float, inspect: Inspect | None) -> dict[str, float]:
        """Add the mean losses and the metrics of `inspect` to the history, return the row, reset `sums`.

        Raises:
            InputError: the loss is not finite.
        """
        row = {"epoch": self.step // steps_per_epoch, "step": self.step, "lr": lr}
        row |= {name: float(value) / steps_per_epoch for name, value in self.mean_sums().items()}
        if not math.isfinite(row["loss"]):
            raise InputError(
                f"the loss is {row['loss']} after epoch {row['epoch']}: the training has diverged; lower lr"
            )
        if inspect:
            row |= inspect(self.learner.network.eval())  # type: ignore[union-attr,operator]
            self.learner.train()
        self.history.append(row)
        self.sums = {}
        return row


def _run(
    learner: nn.Module,
    data: Dataset[dict[str, Tensor]],
    settings: Schedule,
    seed: int,
    compute: Compute,
    checkpoint: Checkpoint,
    rank: int,
    inspect: Inspect | None = None,
) -> tuple[Weights, list[dict[str, float]]]:
    """Run the training in process `rank`; only the first process inspects and saves the state."""
    fabric = make_fabric(compute, rank)
    layout: torch.memory_format = learner.network.layout_on(fabric.device)  # type: ignore[operator,union-attr]
    learner.to(memory_format=layout)  # type: ignore[call-overload]
    learner, optimizer = fabric.setup(learner, make_optimizer(learner, settings))
    learner.train()
    state = _State(fabric, learner, optimizer)
    saved = checkpoint.load()
    if saved:
        state.restore(saved)
    order = BatchSampler(
        len(data),  # type: ignore[arg-type]
        settings.batch_size,
        settings.epochs,
        seed,
        stop_after=settings.stop_after,
        start=state.step,
        rank=rank,
        world=compute.devices,
    )
    show = Progress(
        steps=order.stop,
        start=state.step,
        epochs=settings.stop_after or settings.epochs,
        batch_size=order.batch_size,
        silent=rank > 0,
    )
    with show as progress, listening() as stop_asked:
        for batch in _loader(fabric, data, order, compute.workers):
            torch.manual_seed(derive_seed(seed, state.step, rank))
            done = state.step / order.steps
            lr = set_lr(optimizer, settings, done)
            batch["image"] = batch["image"].contiguous(memory_format=layout)
            values = learner(batch, done)
            optimizer.zero_grad()
            fabric.backward(values["loss"])
            optimizer.step()
            state.step += 1
            state.sums = {name: v.detach() + state.sums.get(name, 0.0) for name, v in values.items()}
            progress.step(values["loss"].detach())
            epoch_ends = state.step % order.steps_per_epoch == 0
            row = state.end_epoch(order.steps_per_epoch, lr, inspect) if epoch_ends else None
            stops = any_process(bool(stop_asked())) and state.step < order.stop
            if row or stops or state.step % STEPS_BETWEEN_CHECKPOINTS == 0:
                content = state.saved()
                if rank == 0:
                    checkpoint.save(content)
            if stops:  # print after saving: the reader of the output may have exited
                kind = KeyboardInterrupt if stop_asked() == signal.SIGINT else Unfinished
                raise kind(
                    f"stopped by a signal after step {state.step} of {order.stop}; the state is saved: "
                    "run the same command to continue"
                )
            if row:
                progress.epoch(row)
    weights = learner.network.state_dict()  # type: ignore[union-attr]
    return {name: w.cpu().contiguous() for name, w in weights.items()}, state.history


def _loader(
    fabric: Fabric, data: Dataset[dict[str, Tensor]], order: BatchSampler, workers: int
) -> "DataLoader[dict[str, Tensor]]":
    loader = DataLoader(
        data,
        batch_sampler=order,  # one iterator over all epochs: workers are never restarted
        num_workers=workers,
        worker_init_fn=leave_it_to_the_trainer,
        pin_memory=fabric.device.type == "cuda",
    )
    return fabric.setup_dataloaders(loader, use_distributed_sampler=False)  # type: ignore[return-value]
