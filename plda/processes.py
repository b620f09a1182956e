"""A map over items in several processes, its results in order.

Worker processes may import this module, so it imports no torch: that would cost each of them seconds.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice, starmap
from typing import TypeVar, TypeVarTuple

from plda.errors import Unfinished

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def in_processes(
    function: Callable[[*Ts], T], arguments: Iterable[tuple[*Ts]], processes: int
) -> Generator[T, None, None]:
    """`itertools.starmap` in worker processes: results in order, of at most 2 calls ahead per process.

    Args:
        function: a module's own function, or a partial of one: workers import it by name.
        arguments: of one call each; taken as they are needed, so they may be endless. Pickled for the worker.
        processes: how many, at least 1; with 1, none is started and the calls are made here.

    Returns:
        What each call returned. Closing it ends the processes, when the calls begun are done.

    Raises:
        Exception: what a call raised, in place of its result; that ends the processes, too.
        Unfinished: a process was killed.
    """
    if processes == 1:
        yield from starmap(function, arguments)
        return
    # not forked: a copy of a process that runs torch's threads may hang
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))
    try:
        yield from in_order(pool, function, arguments, 2 * processes)
    finally:
        pool.shutdown(cancel_futures=True)


def in_order(
    pool: Executor, function: Callable[[*Ts], T], arguments: Iterable[tuple[*Ts]], ahead: int
) -> Generator[T, None, None]:
    """`itertools.starmap` by the processes of `pool`: results in order, of at most `ahead` calls begun.

    Raises:
        Exception: what a call raised, in place of its result.
        Unfinished: a process was killed.
    """
    waiting = iter(arguments)
    try:
        begun = deque(pool.submit(function, *each) for each in islice(waiting, ahead))
        while begun:
            result = begun.popleft().result()
            begun.extend(pool.submit(function, *each) for each in islice(waiting, 1))
            yield result
    except BrokenProcessPool as error:
        raise Unfinished(
            "a worker process was killed, for want of memory perhaps; nothing is written"
        ) from error
