"""Ending a training politely: at SIGTERM or SIGUSR1, which schedulers send before they kill, and at Ctrl-C.

The first such signal is remembered, so that a training can keep its state at the next step and leave; the
second kills at once.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@contextmanager
def listening() -> Iterator[Callable[[], int]]:
    """Remember signals within; call what is given for the number of the first one, 0 before any came.

    In a main thread only. Ctrl-C stays ignored where it is ignored already, as in a shell's background jobs.
    """
    came: list[int] = []
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    heard = [each for each in SIGNALS if not (each == signal.SIGINT and ignored)]

    def remember(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        for each in heard:
            signal.signal(each, signal.SIG_DFL)

    before = {each: signal.signal(each, remember) for each in heard}
    try:
        yield lambda: came[0] if came else 0
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def leave_it_to_the_trainer(_worker: int) -> None:
    """Make a data loader's worker deaf: the signal reaches it too, and without it there is no next step."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
