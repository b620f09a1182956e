"""Work on one item after another, spread over processes; results in the items' order.

Each result depends on its item alone, so what comes out is the same with any number of processes. On a CPU
two processes of one thread are faster than one of two (docs/measured/speed.md), so each thread becomes a
process where there are enough images and `compute.devices` does not say how many. One process alone, as on a
GPU, has `compute.workers` threads beside it, which read the next items meanwhile.
"""

import multiprocessing
import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.queues import SimpleQueue
from typing import Any, Protocol, TypeVar

import torch

from plda.compute.device import find_device
from plda.params import Compute
from plda.processes import end_with_parent, ending, in_order

SHARE = 24  # images that are worth a process, which takes as long to start

T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
R = TypeVar("R")


class Worker(Protocol[T_contra, R_co]):
    """What is done with an item, in two steps, so that the next items are read while one is computed."""

    def load(self, item: T_contra, /) -> Any:
        """Read what the item needs; may be called in several threads."""

    def __call__(self, loaded: Any, /) -> R_co:
        """Return the result, of what `load` has returned."""


@contextmanager
def spread(
    make: Callable[[torch.device], Worker[T, R]],
    compute: Compute,
    images: int,
    made: Worker[T, R] | None = None,
) -> Iterator[Callable[[Iterable[T]], Iterator[R]]]:
    """Give a map over items, which one or several processes do.

    Args:
        make: makes the worker of a process, given its device. A module's own class, or a partial of one:
            processes import it by name.
        compute: where it runs.
        images: how many there are in all items.
        made: the worker of this process, if there is one already, in case it does all by itself.

    Raises:
        InputError: a device that this machine does not have.
        Unfinished: a process was killed.
    """
    device = find_device(compute)
    processes = _processes(compute, device, images)
    if processes == 1:
        worker, ahead = made or make(device), compute.workers
        if not ahead:
            yield lambda items: map(partial(_do, worker), items)
            return
        with ThreadPoolExecutor(ahead) as readers:
            yield lambda items: map(
                worker, in_order(readers, worker.load, ((item,) for item in items), 2 * ahead)
            )
        return
    context = multiprocessing.get_context("spawn")
    places = context.SimpleQueue()
    for place in range(processes):
        places.put(place)
    begin = (make, device.type, places, max(1, torch.get_num_threads() // processes))
    pool = ProcessPoolExecutor(processes, context, _begin, begin)
    with ending(pool):
        yield lambda items: map(
            pickle.loads, in_order(pool, _call, ((item,) for item in items), 2 * processes)
        )


def _processes(compute: Compute, device: torch.device, images: int) -> int:
    if compute.devices > 1 or device.type != "cpu":
        return compute.devices
    return max(1, min(torch.get_num_threads(), images // SHARE))


def _do(worker: Worker[T, R], item: T) -> R:
    return worker(worker.load(item))


class _Process:
    """What a worker process knows."""

    make: Callable[[torch.device], Worker[Any, Any]]
    device: torch.device
    worker: Worker[Any, Any] | None = None


def _begin(
    make: Callable[[torch.device], Worker[Any, Any]],
    kind: str,
    places: "SimpleQueue[int]",
    threads: int,
) -> None:
    end_with_parent()
    place = places.get()
    _Process.make = staticmethod(make)
    _Process.device = torch.device(kind, place) if kind == "cuda" else torch.device(kind)
    torch.set_num_threads(threads)


def _call(item: Any) -> bytes:
    """The result, pickled by hand: torch would send each tensor by a file descriptor of its own."""
    if _Process.worker is None:  # not in _begin, so that an InputError comes out
        _Process.worker = _Process.make(_Process.device)
    return pickle.dumps(_do(_Process.worker, item))
