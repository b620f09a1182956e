"""Calls in worker processes: their order, their errors, their end.

Each worker imports this module, so it does not import torch, which takes seconds.
"""

import itertools
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from plda.processes import in_processes


def times(a: float, b: float, rest: float = 0) -> tuple[float, int]:
    """Wait `rest` seconds in a worker process; return a product and the process id."""
    time.sleep(rest)
    return a * b, os.getpid()


def divided(a: float, b: float) -> float:
    return a / b


@pytest.mark.parametrize("processes", [1, 2])
def test_in_processes_yields_results_in_order(processes: int) -> None:
    rests = [0.4, 0.0, 0.2, 0.0, 0.0, 0.1]  # the first call finishes last
    results = list(in_processes(times, [(i, 10, rest) for i, rest in enumerate(rests)], processes))
    assert [product for product, _ in results] == [0, 10, 20, 30, 40, 50]
    assert all((pid == os.getpid()) == (processes == 1) for _, pid in results)
    assert list(in_processes(times, [], processes)) == []
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("processes", [1, 2])
def test_in_processes_raises_worker_error_in_order(processes: int) -> None:
    results = in_processes(divided, [(1, 1), (1, 2), (1, 0), (1, 4)], processes)
    assert [next(results), next(results)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert not multiprocessing.active_children()
    assert list(results) == []


@pytest.mark.parametrize(("processes", "ahead"), [(1, 0), (2, 4)])
def test_in_processes_takes_endless_arguments_lazily(processes: int, ahead: int) -> None:
    taken = 0

    def endless() -> Iterator[tuple[int, int]]:
        nonlocal taken
        for taken in itertools.count(1):
            yield taken, 2

    with closing(in_processes(times, endless(), processes)) as results:
        assert taken == 0
        assert [product for product, _ in itertools.islice(results, 5)] == [2, 4, 6, 8, 10]
        assert taken == 5 + ahead
    assert not multiprocessing.active_children()


def test_in_processes_ends_workers_when_closed() -> None:
    results = in_processes(times, ((i, 2) for i in itertools.count()), 2)
    _, pid = next(results)
    assert pid in {child.pid for child in multiprocessing.active_children()}
    results.close()
    assert not multiprocessing.active_children()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
