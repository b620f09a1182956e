"""A map over items in several processes, its results in order.

Worker processes may import this module, so it imports no torch: that would cost each of them seconds.
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
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), end_with_parent)
    with ending(pool):
        yield from in_order(pool, function, arguments, 2 * processes)


def in_order(
    pool: Executor, function: Callable[[*Ts], T], arguments: Iterable[tuple[*Ts]], ahead: int
) -> Generator[T, None, None]:
    """`itertools.starmap` by the processes of `pool`: results in order, of at most `ahead` calls begun.

    Raises:
        Exception: what a call raised, in place of its result.
        Unfinished: a process was killed.
    """
    waiting = iter(arguments)

    def submit(each: tuple[*Ts]) -> Future[T]:
        with deaf_to_ctrl_c():  # it may start a process
            return pool.submit(function, *each)

    try:
        begun = deque(map(submit, islice(waiting, ahead)))
        while begun:
            result = begun.popleft().result()
            begun.extend(map(submit, islice(waiting, 1)))
            yield result
    except BrokenProcessPool as error:
        raise Unfinished(
            "a worker process was killed, for want of memory perhaps; nothing is written"
        ) from error


@contextmanager
def ending(pool: Executor) -> Iterator[None]:
    """End the processes of `pool` after what is within, when the calls begun are done; at Ctrl-C at once."""
    try:
        yield
    except KeyboardInterrupt:
        kill_workers()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def kill_workers() -> None:
    """Kill the processes that this one has started; nothing that they did is needed any more."""
    for worker in multiprocessing.active_children():
        worker.kill()


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Start processes within: Ctrl-C, which a terminal sends to all, then reaches this process alone."""
    resource_tracker.ensure_running()  # multiprocessing starts it with the first process, and unblocks then
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Make this process, a worker, end as soon as the process that started it has ended."""
    Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(AGAIN)
