"""The processes of one training: the first starts the others, and none outlives the loss of another.

A process that is lost (killed, out of memory) leaves the others waiting in a collective call, on a GPU
without an end; so each is watched from a thread.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from threading import Event, Thread

from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from plda.errors import AGAIN, InputError, Unfinished
from plda.processes import deaf_to_ctrl_c, end_with_parent

LIMIT = timedelta(minutes=10)  # how long one waits for another, which may be looking at the network meanwhile
LAST_STEP = 10.0  # seconds that all others have to end by themselves, once the first is through
GRACE = 10.0  # seconds that a process has to end by itself


@contextmanager
def team(size: int, backend: str, work: Callable[[int], object]) -> Iterator[None]:
    """Within, this process is the first of `size` that may speak to each other; the others do `work`.

    Args:
        size: number of processes; with 1 none is started.
        backend: of torch.distributed.
        work: is given a process's rank, 1 to `size` - 1. Pickled: a module's own function, or a partial.

    Raises:
        Unfinished: a process did not answer for LIMIT.

    A process that is lost raises nothing: this one ends, too, with status AGAIN and a line that says why.
    """
    if size == 1:
        yield
        return
    store = TCPStore("127.0.0.1", 0, size, is_master=True, wait_for_workers=False)
    # by hand: torch's way of handing tensors to a process would let all of them train in the same memory
    pickled = pickle.dumps(work)
    start = multiprocessing.get_context("spawn").Process
    others = [
        start(target=_member, args=(pickled, rank, size, backend, store.port, LIMIT))
        for rank in range(1, size)
    ]
    with deaf_to_ctrl_c():
        for other in others:
            other.start()
    over = Event()
    watch = Thread(target=_watch, args=(others, over), daemon=True)
    watch.start()
    try:
        _join(store, 0, size, backend, LIMIT)
        yield
    except RuntimeError as error:
        watch.join(GRACE)  # if a process is lost, that is why, and this one ends here
        if "imed out" in str(error):  # torch has no class for it
            raise Unfinished(f"another process has not answered for {LIMIT}: {error}") from error
        raise
    else:
        over.set()
        watch.join(GRACE)
        distributed.destroy_process_group()
    finally:
        over.set()
        latest = time.monotonic() + LAST_STEP
        for other in others:  # a signal has stopped it, too: let it end the processes that load its data
            other.join(max(0.0, latest - time.monotonic()))
            other.kill()


def _member(pickled: bytes, rank: int, size: int, backend: str, port: int, limit: timedelta) -> None:
    """What another process than the first does."""
    end_with_parent()
    _join(TCPStore("127.0.0.1", port, size, is_master=False), rank, size, backend, limit)
    try:
        pickle.loads(pickled)(rank)
    except (InputError, Unfinished, KeyboardInterrupt):
        pass  # the first says so
    except RuntimeError:
        time.sleep(GRACE)  # if another process was lost, the first says so, and ends this one meanwhile
        raise


def _join(store: TCPStore, rank: int, size: int, backend: str, limit: timedelta) -> None:
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)


def _watch(others: Sequence[SpawnProcess], over: Event) -> None:
    """End this process and all others as soon as one of them has failed, unless all is `over`."""
    running = {other.sentinel: (number, other) for number, other in enumerate(others, start=2)}
    while running:
        for sentinel in wait(list(running)):
            number, other = running.pop(sentinel)  # type: ignore[arg-type]
            other.join()
            if other.exitcode and not over.is_set():
                print(_loss(number, len(others) + 1, other.exitcode), file=sys.stderr, flush=True)
                for each in others:
                    each.kill()
                os._exit(AGAIN)  # the main thread may wait for ever


def _loss(number: int, size: int, status: int) -> str:
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"has failed (status {status})"
    return (
        f"process {number} of {size} {how}, so all are stopped; "
        "the same command goes on from the last checkpoint"
    )
