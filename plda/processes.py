"""A map over items in worker processes, with results in order.

Worker processes may import this module, so it does not import torch, which takes seconds in each of them.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice, starmap
from multiprocessing import resource_tracker
from threading import Thread
from typing import TypeVar, TypeVarTuple

from plda.errors import AGAIN, Unfinished

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def in_processes(
    function: Callable[[*Ts], T], arguments: Iterable[tuple[*Ts]], processes: int
) -> Generator[T, None, None]:
    """Run `itertools.starmap` in worker processes; yield results in order, 2 calls per process ahead.

    Args:
        function: a function of a module, or a partial of one: workers import it by name.
        arguments: the arguments of each call, pickled for the worker; may be endless, read when needed.
        processes: number of worker processes, at least 1. With 1, the calls run in this process.

    Returns:
        The results of the calls. Closing the generator ends the processes after the calls in progress.

    Raises:
        Exception: the exception of a call, in place of its result; it ends the processes, too.
        Unfinished: a worker process was killed.
    """
    if processes == 1:
        yield from starmap(function, arguments)
        return
    # spawn, not fork: a forked copy of a process with torch threads may hang
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), end_with_parent)
    with ending(pool):
        yield from in_order(pool, function, arguments, 2 * processes)


def in_order(
    pool: Executor, function: Callable[[*Ts], T], arguments: Iterable[tuple[*Ts]], ahead: int
) -> Generator[T, None, None]:
    """Run `itertools.starmap` in the processes of `pool`; yield results in order, `ahead` calls ahead.

    Raises:
        Exception: the exception of a call, in place of its result.
        Unfinished: a worker process was killed.
    """
    waiting = iter(arguments)

    def submit(each: tuple[*Ts]) -> Future[T]:
        with deaf_to_ctrl_c():  # submit may start a process
            return pool.submit(function, *each)

    try:
        begun = deque(map(submit, islice(waiting, ahead)))
        while begun:
            result = begun.popleft().result()
            begun.extend(map(submit, islice(waiting, 1)))
            yield result
    except BrokenProcessPool as error:
        raise Unfinished(
            "a worker process was killed, perhaps because memory ran out; nothing was written"
        ) from error


@contextmanager
def ending(pool: Executor) -> Iterator[None]:
    """End the processes of `pool` after the context, when their calls are done; on Ctrl-C at once."""
    try:
        yield
    except KeyboardInterrupt:
        kill_workers()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def kill_workers() -> None:
    """Kill the worker processes of this process, whose results are no longer needed."""
    for worker in multiprocessing.active_children():
        worker.kill()


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Block Ctrl-C in processes started within the context: a terminal sends it to all of them."""
    resource_tracker.ensure_running()  # else the first process starts it, which unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """End this worker process as soon as its parent process has ended."""
    Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(AGAIN)
