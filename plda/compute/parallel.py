"""Process items in several processes; the results keep the items' order.

Each result depends only on its item, so the number of processes does not change it. On a CPU, two processes
with one thread are faster than one with two (docs/measured/speed.md). So there is one process per thread, if
there are enough images and `compute.devices` does not set the number. A single process, as on a GPU, has
`compute.workers` threads that read the next items in the background.
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

SHARE = 24  # images that take as long as the start of a process

T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
R = TypeVar("R")


class Worker(Protocol[T_contra, R_co]):
    """Processes an item in two steps, so that the next items are read during a computation."""

    def load(self, item: T_contra, /) -> Any:
        """Read the data of an item; may be called in several threads."""

    def __call__(self, loaded: Any, /) -> R_co:
        """Return the result for the data that `load` returned."""


@contextmanager
def parallel_map(
    make: Callable[[torch.device], Worker[T, R]],
    compute: Compute,
    images: int,
    made: Worker[T, R] | None = None,
) -> Iterator[Callable[[Iterable[T]], Iterator[R]]]:
    """Yield a map function over items that uses one or several processes.

    Args:
        make: creates the worker of a process, given its device. A module-level class, or a partial of one:
            processes import it by name.
        compute: device settings.
        images: number of images in all items.
        made: an existing worker of this process, used if there are no other processes.

    Raises:
        InputError: this machine does not have the device.
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
    """The state of a worker process."""

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
    """Return the result, pickled by hand: torch would use a file descriptor for each tensor."""
    if _Process.worker is None:  # built here, not in _begin, so that an InputError reaches the caller
        _Process.worker = _Process.make(_Process.device)
    return pickle.dumps(_do(_Process.worker, item))
