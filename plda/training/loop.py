"""The one loop that every trainer shares: schedule, precision, progress, history, checkpoints, exact resume.

All randomness is a function of (seed, step): the order of the items, their augmentation, dropout. So a
training that was killed and resumed computes what an unbroken one does, bit for bit on a CPU.
"""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from plda.files import write_text
from plda.params import Compute, Schedule
from plda.randomness import mixed
from plda.training.checkpoints import Checkpoint
from plda.training.compute import make_fabric
from plda.training.order import Order
from plda.training.progress import Progress

Losses = dict[str, Tensor]
Weights = dict[str, Tensor]
Inspect = Callable[[nn.Module], dict[str, float]]

STEPS_BETWEEN_CHECKPOINTS = 200  # what a killed job loses at most where an epoch is longer


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
    """Train a network on `data`, from where its checkpoint stands, and write what comes of it.

    Args:
        learner: takes a batch and the training's progress in [0, 1) to named scalars, of which `loss` is
            minimised. It has the `network` that is kept, and this has a `backbone`; everything else learns
            `head_lr_factor` times faster.
        data: gives a dict of tensors, `image` among them, for an item (epoch, position).
        settings: a trainer's section of the params.
        seed: of order, augmentation and dropout.
        compute: where it runs.
        checkpoint: where the state is kept; deleted once `write` is through.
        write: is given the network's trained weights on the CPU, and the history: a row per epoch with epoch,
            step, lr, the mean of each loss, and what `inspect` saw.
        inspect: looks at the network, in evaluation mode, after each epoch.
    """
    fabric = make_fabric(compute)
    fabric.launch()
    with checkpoint.locked() if fabric.is_global_zero else nullcontext():
        weights, history = _run(
            fabric, learner, data, settings, seed, compute.workers, checkpoint, inspect or (lambda _: {})
        )
        if fabric.is_global_zero:
            write(weights, pd.DataFrame(history))
            checkpoint.delete()


def make_optimizer(learner: nn.Module, settings: Schedule) -> torch.optim.Optimizer:
    """SGD or AdamW over backbone and head; a group's `factor` is what its learning rate is times `lr`."""
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
    """Write the curves as CSV, atomically."""
    write_text(path, history.to_csv(index=False, float_format="%.6g"))


@dataclass
class _State:
    """All that a training is after some step."""

    fabric: Fabric
    learner: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    sums: Losses = field(default_factory=dict)  # of the losses since the epoch began, in this process

    def restore(self, saved: dict[str, Any]) -> None:
        self.step, self.history = saved["step"], saved["history"]
        self.sums = self.fabric.to_device(saved["sums"])
        self.learner.load_state_dict(saved["learner"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.fabric.strategy.precision.load_state_dict(saved["precision"])
        self.fabric.print(f"resumed after step {self.step}", file=sys.stderr)

    def saved(self) -> dict[str, Any]:
        """What `restore` takes; every process must ask for it."""
        return {
            "step": self.step,
            "history": self.history,
            "sums": self.mean_sums(),
            "learner": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
        }

    def mean_sums(self) -> Losses:
        """`sums`, averaged over the processes."""
        reduced = {name: self.fabric.all_reduce(total, reduce_op="mean") for name, total in self.sums.items()}
        return cast(Losses, reduced)

    def end_epoch(self, steps_per_epoch: int, lr: float, inspect: Inspect) -> dict[str, float]:
        """Begin new sums; return the old ones, and what `inspect` sees, as one more row of the history."""
        row = {"epoch": self.step // steps_per_epoch, "step": self.step, "lr": lr}
        row |= {name: float(total) / steps_per_epoch for name, total in self.mean_sums().items()}
        if self.fabric.is_global_zero:
            row |= inspect(self.learner.network.eval())  # type: ignore[union-attr,operator]
            self.learner.train()
        self.history.append(row)
        self.sums = {}
        return row


def _run(
    fabric: Fabric,
    learner: nn.Module,
    data: Dataset[dict[str, Tensor]],
    settings: Schedule,
    seed: int,
    workers: int,
    checkpoint: Checkpoint,
    inspect: Inspect,
) -> tuple[Weights, list[dict[str, float]]]:
    learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    learner, optimizer = fabric.setup(learner, make_optimizer(learner, settings))
    learner.train()
    state = _State(fabric, learner, optimizer)
    saved = checkpoint.load()
    if saved:
        state.restore(saved)
    order = Order(
        len(data),  # type: ignore[arg-type]
        settings.batch_size,
        settings.epochs,
        seed,
        stop_after=settings.stop_after,
        start=state.step,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )
    with Progress(
        steps=order.stop,
        start=state.step,
        epochs=settings.stop_after or settings.epochs,
        batch_size=order.batch_size,
        silent=not fabric.is_global_zero,
    ) as progress:
        for batch in _loader(fabric, data, order, workers):
            torch.manual_seed(mixed(seed, state.step, fabric.global_rank))
            done = state.step / order.steps
            lr = set_lr(optimizer, settings, done)
            batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
            values = learner(batch, done)
            optimizer.zero_grad()
            fabric.backward(values["loss"])
            optimizer.step()
            state.step += 1
            state.sums = {name: v.detach() + state.sums.get(name, 0.0) for name, v in values.items()}
            progress.step(values["loss"].detach())
            epoch_ends = state.step % order.steps_per_epoch == 0
            if epoch_ends:
                progress.epoch(state.end_epoch(order.steps_per_epoch, lr, inspect))
            if epoch_ends or state.step % STEPS_BETWEEN_CHECKPOINTS == 0:
                content = state.saved()
                if fabric.is_global_zero:
                    checkpoint.save(content)
    weights = learner.network.state_dict()  # type: ignore[union-attr]
    return {name: w.cpu().contiguous() for name, w in weights.items()}, state.history


def _loader(
    fabric: Fabric, data: Dataset[dict[str, Tensor]], order: Order, workers: int
) -> "DataLoader[dict[str, Tensor]]":
    loader = DataLoader(
        data,
        batch_sampler=order,  # one iterator over all epochs: workers never stop and start again
        num_workers=workers,
        pin_memory=fabric.device.type == "cuda",
    )
    return fabric.setup_dataloaders(loader, use_distributed_sampler=False)  # type: ignore[return-value]
