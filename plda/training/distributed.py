"""The processes of one training run: the first starts the others, and if one is lost, all end.

A lost process (killed, out of memory) leaves the others waiting in a collective call, on a GPU forever; so a
thread watches each process.
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

LIMIT = timedelta(minutes=10)  # maximum wait for another process, which may inspect the network
LAST_STEP = 10.0  # seconds for all others to end by themselves after the first has finished
GRACE = 10.0  # seconds for a process to end by itself


@contextmanager
def process_group(size: int, backend: str, work: Callable[[int], object]) -> Iterator[None]:
    """Start the other processes, which do `work`, and connect them with this one, the first.

    Args:
        size: number of processes; with 1, no other process is started.
        backend: backend of torch.distributed.
        work: receives a rank, 1 to `size` - 1. Pickled: a module-level function, or a partial of one.

    Raises:
        Unfinished: a process did not answer for LIMIT.

    A lost process raises no error: this process exits with status AGAIN and prints the reason.
    """
    if size == 1:
        yield
        return
    store = TCPStore("127.0.0.1", 0, size, is_master=True, wait_for_workers=False)
    # by hand: torch would pass tensors in shared memory, and all processes would train the same ones
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
        watch.join(GRACE)  # if a lost process is the cause, this process ends here
        if "imed out" in str(error):  # torch has no error class for a timeout
            raise Unfinished(f"another process has not answered for {LIMIT}: {error}") from error
        raise
    else:
        over.set()
        watch.join(GRACE)
        distributed.destroy_process_group()
    finally:
        over.set()
        latest = time.monotonic() + LAST_STEP
        for other in others:  # the signal stops it too: let it end its data loader's workers
            other.join(max(0.0, latest - time.monotonic()))
            other.kill()


def _member(pickled: bytes, rank: int, size: int, backend: str, port: int, limit: timedelta) -> None:
    """Run a process other than the first."""
    end_with_parent()
    _join(TCPStore("127.0.0.1", port, size, is_master=False), rank, size, backend, limit)
    try:
        pickle.loads(pickled)(rank)
    except (InputError, Unfinished, KeyboardInterrupt):
        pass  # the first process reports it
    except RuntimeError:
        time.sleep(GRACE)  # if another process is lost, the first reports it and ends this one meanwhile
        raise


def _join(store: TCPStore, rank: int, size: int, backend: str, limit: timedelta) -> None:
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)


def _watch(others: Sequence[SpawnProcess], over: Event) -> None:
    """End this process and all others as soon as one of them fails, unless `over` is set."""
    running = {other.sentinel: (number, other) for number, other in enumerate(others, start=2)}
    while running:
        for sentinel in wait(list(running)):
            number, other = running.pop(sentinel)  # type: ignore[arg-type]
            other.join()
            if other.exitcode and not over.is_set():
                print(_loss(number, len(others) + 1, other.exitcode), file=sys.stderr, flush=True)
                for each in others:
                    each.kill()
                os._exit(AGAIN)  # the main thread may wait forever


def _loss(number: int, size: int, status: int) -> str:
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"failed (status {status})"
    return (
        f"process {number} of {size} {how}, so all processes are stopped; "
        "run the same command to continue from the last checkpoint"
    )
