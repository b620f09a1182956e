"""Work on one item after another, spread over processes that have a device each; results in the items' order.

Each result depends on its item alone, so what comes out is the same with any number of processes.
"""

import multiprocessing
import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from typing import Any, TypeVar

import torch

from plda.params import Compute
from plda.processes import end_with_parent, ending, in_order
from plda.training.compute import find_device, threads_of_each

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def spread(
    make: Callable[[torch.device], Callable[[T], R]], compute: Compute
) -> Iterator[Callable[[Iterable[T]], Iterator[R]]]:
    """Give a map over items that `compute.devices` processes do; with 1, this one.

    Args:
        make: makes, in each process, what is called for an item, given the process's device. A module's own
            function or class, or a partial of one: workers import it by name.
        compute: where it runs.

    Raises:
        InputError: a device that this machine does not have.
        Unfinished: a process was killed.
    """
    device = find_device(compute)
    if compute.devices == 1:
        function = make(device)
        yield lambda items: map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    places = context.SimpleQueue()
    for place in range(compute.devices):
        places.put(place)
    begin = (make, device.type, places, threads_of_each(compute))
    pool = ProcessPoolExecutor(compute.devices, context, _begin, begin)
    with ending(pool):
        yield lambda items: map(
            pickle.loads, in_order(pool, _call, ((item,) for item in items), 2 * compute.devices)
        )


class _Worker:
    """What a worker process knows."""

    make: Callable[[torch.device], Callable[[Any], Any]]
    device: torch.device
    function: Callable[[Any], Any] | None = None


def _begin(
    make: Callable[[torch.device], Callable[[Any], Any]], kind: str, places: "SimpleQueue[int]", threads: int
) -> None:
    end_with_parent()
    place = places.get()
    _Worker.make = staticmethod(make)
    _Worker.device = torch.device(kind, place) if kind == "cuda" else torch.device(kind)
    torch.set_num_threads(threads)


def _call(item: Any) -> bytes:
    """The result, pickled by hand: torch would send each tensor by a file descriptor of its own."""
    if _Worker.function is None:  # not in _begin, so that an InputError comes out
        _Worker.function = staticmethod(_Worker.make(_Worker.device))
    return pickle.dumps(_Worker.function(item))
